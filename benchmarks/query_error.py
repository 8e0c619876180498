"""Error of private answers at the same price, beside OpenDP, Tumult Analytics and SmartNoise SQL.

Three workloads over 24 x 50 groups, in which one vehicle counts in at most 5 groups with 2 rows in each:
counts, sums of clamped speeds, and means. All four bound contributions alike here, so that noise alone
differs. Sfumato runs its own plan and noise. OpenDP runs its samplers with the scales that its planner gives
(l0 * linf * bound / epsilon; a mean is a sum of half the budget over a length of the other half), and its own
search for a Gaussian. Tumult and SmartNoise are not installed: their noise is drawn by numpy with the scales
that their manuals state: Tumult's mean adds up deviations from the middle of the bounds, SmartNoise gives
every column its own part of epsilon, and its mean is a sum over a count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import opendp.prelude as dp
from numpy.typing import NDArray

from _bench import arguments, report
from sfumato.core.gate import Gate, Plan
from sfumato.core.policy import Policy
from sfumato.queries import run
from sfumato.queries.bounded import Cells
from sfumato.queries.model import Aggregate, Column, Key, Query, Terms
from sfumato.queries.plan import Planned, plan_query
from sfumato.queries.tables import Table

GROUPS, ROWS, LOW, HIGH = 5, 2, 20, 120
EPSILON, DELTA = Fraction(1), Fraction(1, 10**6)
CELLS = 24 * 50
#: Rows of a group, and their mean speed.
COUNT, MEAN = 8000, 65.0
Floats = NDArray[np.float64]
Draw = Callable[[float, int], Floats]
POLICY = f"""
[project]
name = "errors"
[populations.drivers]
unit = "vehicle"
epsilon = 10
delta = 1e-6
[datasets.flow]
population = "drivers"
unit = "vehicle"
table = "flow.parquet"
max_groups = {GROUPS}
max_rows = {ROWS}
[datasets.flow.columns.junction]
range = [1, 50]
[datasets.flow.columns.hour]
range = [0, 23]
[datasets.flow.columns.speed]
bounds = [{LOW}, {HIGH}]
"""


def planned(kind: Any, mechanism: Any) -> Planned:
    """Return sfumato's plan of a workload."""
    policy = Policy.parse(POLICY)
    section = policy.datasets["flow"]
    table = Table(
        name="flow",
        version="flow@1",
        unit="vehicle",
        kinds={"vehicle": "integer", "junction": "integer", "hour": "integer", "speed": "number"},
        columns=section.columns,
        groups=section.max_groups,
        rows=section.max_rows,
        datasets=(("flow", "0" * 64),),
        populations=("drivers",),
    )
    figure = Aggregate(kind, "x", of=None if kind == "count" else Column("speed"))
    keys = (Key("junction", Column("junction")), Key("hour", Column("hour")))
    query = Query(table="flow", aggregates=(figure,), keys=keys)
    terms = Terms(epsilon=EPSILON, delta=DELTA if mechanism == "gaussian" else None, mechanism=mechanism)
    return plan_query(query, replace(terms, integers=True), {"flow": table}, policy, "not declared")


def ours(kind: Any, mechanism: Any, rounds: int) -> Floats:
    """Return errors of sfumato's answers, by its own noise."""
    plan = planned(kind, mechanism)
    exact = {"rows": COUNT}
    for measure in plan.measures:
        if measure.kind == "sum":
            exact["sum"] = round(COUNT * (MEAN / measure.step - measure.centre))
    cells = Cells(tuple(np.full(CELLS, exact[one.kind], np.int64) for one in plan.measures))
    truth = {"count": COUNT, "sum": COUNT * MEAN, "mean": MEAN}[kind]
    permit = Gate().open(Plan(action="query", mechanism="m", guarantee="heuristic", statement="a benchmark"))
    drawn = [run._released(plan, cells, permit).table.column("x").to_numpy() for _ in range(rounds)]
    errors: Floats = np.concatenate(drawn).astype(float) - truth
    return errors


def opendp(law: str) -> Draw:
    """Return noise by OpenDP's samplers."""
    dp.enable_features("contrib")

    def draw(scale: float, count: int) -> Floats:
        space, metric = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
        if law == "laplace":
            noise = dp.m.make_laplace(space, metric, scale=scale)
        else:
            noise = dp.m.make_gaussian(space, dp.l2_distance(T="f64"), scale=scale)
        return np.array(noise([0] * count), float)

    return draw


def opendp_sigma(parts: int) -> float:
    """Return the least deviation, for sensitivity 1, that OpenDP lets pass for one of so many equal parts."""
    space, metric = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")

    def private(scale: float) -> bool:
        noise = dp.m.make_gaussian(space, metric, scale=scale)
        both = dp.c.make_composition([noise] * parts) if parts > 1 else noise
        return dp.c.make_zCDP_to_approxDP(both).map(1.0).epsilon(float(DELTA)) <= float(EPSILON)

    low, high = 0.1, 100.0
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if private(middle) else (middle, high)
    return high


def numpy_laplace(scale: float, count: int) -> Floats:
    """Return Laplace noise that is as good as any for a mean square."""
    return np.random.default_rng().laplace(0, scale, count)


def theirs(kind: str, law: str, draw: Draw, rounds: int, *, centred: bool = False) -> Floats:
    """Return errors of another library's answers, by its rule for the noise.

    Args:
        centred: means add up deviations from the middle of the bounds.
    """
    count, parts = CELLS * rounds, 2 if kind == "mean" else 1
    units = ROWS * (GROUPS if law == "laplace" else math.sqrt(GROUPS))
    per_unit = parts / float(EPSILON) if law == "laplace" else opendp_sigma(parts)
    widest = (HIGH - LOW) / 2 if centred and kind == "mean" else max(abs(LOW), abs(HIGH))
    # Sums are drawn in hundredths, as the samplers are of whole numbers.
    sums = draw(100 * units * widest * per_unit, count) / 100 if kind != "count" else np.zeros(count)
    lengths = draw(units * per_unit, count) if kind != "sum" else np.zeros(count)
    if kind == "mean":
        middle = (LOW + HIGH) / 2 if centred else 0.0
        return (COUNT * (MEAN - middle) + sums) / (COUNT + lengths) + middle - MEAN
    return sums + lengths


def spread(errors: Floats) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt((errors**2).mean()))


def main() -> None:
    asked = arguments(__doc__ or "")
    rounds = 60 if asked.quick else 400
    ratios: dict[str, object] = {}
    names = ("OpenDP", "Tumult", "SmartNoise")
    heads = "".join(f"{name:>12}" for name in ("sfumato", *names))
    lines = [f"{'workload':22}{heads}   error, root mean square"]
    for law, price in (("laplace", "epsilon 1"), ("gaussian", "epsilon 1, delta 1e-6")):
        for kind in ("count", "sum", "mean"):
            peers: Mapping[str, Floats] = {"OpenDP": theirs(kind, law, opendp(law), rounds)}
            if law == "laplace":
                peers = {
                    **peers,
                    "Tumult": theirs(kind, law, numpy_laplace, rounds, centred=True),
                    "SmartNoise": theirs(kind, law, numpy_laplace, rounds),
                }
            mine, others = spread(ours(kind, law, rounds)), {name: spread(one) for name, one in peers.items()}
            told = "".join(f"{others[name]:12.4g}" if name in others else f"{'-':>12}" for name in names)
            lines.append(f"{kind + ', ' + law:22}{mine:12.4g}{told}   {price}")
            ratios[f"{kind}_{law}_error_ratio_to_best"] = mine / min(others.values())
            ratios[f"{kind}_{law}_error_ratio_to_opendp"] = mine / others["OpenDP"]
    report(ratios, lines, asked.json)


if __name__ == "__main__":
    main()
