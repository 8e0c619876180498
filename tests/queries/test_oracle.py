"""Every figure against plain Python: exact sums to the unit, answers without bias, intervals that hold."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("sqlglot", reason="needs sqlglot: pip install sfumato[queries]")
sys.path.insert(0, str(Path(__file__).parent))
import exact
import query_worlds as worlds
from query_bounds import bounded

from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.queries import run
from sfumato.queries.bounded import Cells
from sfumato.queries.model import Aggregate, Column, Key, Query, Terms
from sfumato.queries.plan import Planned

DRAWS = 4000
SPEED = Column("speed")
FIGURES = (
    Aggregate("count", "n"),
    Aggregate("count", "some", of=SPEED),
    Aggregate("units", "who"),
    Aggregate("sum", "total", of=SPEED),
    Aggregate("mean", "mean", of=SPEED),
    Aggregate("variance", "variance", of=SPEED),
    Aggregate("stddev", "deviation", of=SPEED),
    Aggregate("quantile", "median", of=SPEED, quantile=Fraction(1, 2)),
)


def permit(seed: int = 1) -> Permit:
    plan = Plan(action="query", mechanism="m", guarantee="heuristic", statement="a test")
    return Gate(entropy=SeededEntropy(seed)).open(plan)


def plan_of(*figures: Aggregate, keys: tuple[Key, ...] = (), rollup: bool = False, **terms: Any) -> Planned:
    query = Query(table="flow", aggregates=figures, keys=keys, rollup=rollup)
    given = {"epsilon": Fraction(1), "share": "filter", "groups": 1, "rows": 2} | terms
    return worlds.planned(query, Terms(**given))


# DuckDB gives the same whole numbers as plain Python, whatever lies in the rows


def compare(count: int, seed: int) -> None:
    pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'sfumato[queries]'")
    pytest.importorskip("ibis", reason="needs ibis: pip install 'sfumato[queries]'")
    from sfumato.queries.engines import duckdb

    rng, asked = random.Random(seed), 0
    while asked < count:
        query, terms = worlds.question(rng)
        try:
            plan = worlds.planned(query, terms)
        except SfumatoError:
            continue
        if plan.cells > 500:
            continue
        question = worlds.asked(plan, worlds.world(rng).tables, rng.randbytes(16))
        engine = duckdb.build(threads=1)
        try:
            theirs = engine.bounded(question)
        except InvalidRequest:  # numbers that could overflow are refused before any row is read
            continue
        finally:
            engine.close()
        asked += 1
        ours = bounded(question)
        for measure, one, other in zip(plan.measures, ours.values, theirs.values, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"{measure} of {query} {terms}")


def test_duckdb_counts_like_plain_python() -> None:
    compare(6, 1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_duckdb_counts_like_plain_python_five_hundred_times() -> None:
    compare(500, 2)


# With next to no noise, answers are the exact ones

rows = st.lists(
    st.fixed_dictionaries(
        {
            "who": st.integers(0, 5),
            "place": st.sampled_from(["A", "B", "C", "D", "E", None]),
            "speed": st.one_of(st.none(), st.integers(-40, 260).map(lambda half: half / 2)),
        }
    ),
    max_size=30,
)


@settings(max_examples=12, deadline=None)
@given(rows, st.booleans())
@example([{"who": 0, "place": "A", "speed": speed} for speed in (*[None] * 6, 69.5, 70.0)], True)
def test_without_noise_answers_are_exact(given_rows: list[dict[str, Any]], rollup: bool) -> None:
    """Groups and rows without a bound that bites, so that the oracle needs none."""
    table = {"flow": worlds.arrow("flow", given_rows)}
    figures = tuple(one for one in FIGURES if not rollup or one.kind not in ("units", "quantile"))
    plan = plan_of(
        *figures, keys=(Key("place", Column("place")),), rollup=rollup, groups=4, rows=30, epsilon=2**19
    )
    answer = run._released(plan, bounded(worlds.asked(plan, table)), permit())
    truth = {
        row["place"]: row for row in exact.answer(clamped(plan.query), table_of(plan, table), {"flow": "who"})
    }
    for row in answer:
        wanted = truth.get(row["place"])
        for one in figures:
            check(
                one,
                row,
                None if wanted is None else wanted[one.name],
                0 if wanted is None else wanted["some"],
            )


def clamped(query: Query) -> Query:
    """Return the question with bounds and values written out, for an oracle that knows no policy."""
    bounds = (Fraction(-20), Fraction(130))
    return replace(
        query,
        aggregates=tuple(
            one if one.kind in ("count", "units") else replace(one, bounds=bounds) for one in query.aggregates
        ),
        keys=tuple(replace(key, values=("A", "B", "C", "D")) for key in query.keys),
    )


def table_of(plan: Planned, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return {name: tables[name] for name in (one.name for one in plan.tables.values())}


def check(one: Aggregate, row: dict[str, Any], wanted: Any, count: int) -> None:
    value, low, high = row[one.name], row[f"{one.name}_low"], row[f"{one.name}_high"]
    if one.kind in ("count", "units"):
        assert value == (wanted or 0)
    elif one.kind == "quantile":
        assert value is None if not count else -20 <= low <= value <= high <= 130
    elif one.kind == "sum" or value is not None:
        error, true = row[f"{one.name}_error"], float(wanted or 0)
        if error is None:  # a root at 0 has no standard error; its square has
            value, true, error = value**2, true**2, row["variance_error"]
        assert abs(value - true) <= 10 * error + 1e-3
    else:
        assert count < 10


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(-40, 260).map(lambda half: half / 2), min_size=1, max_size=60),
    st.sampled_from([1, 2, 3, 4]),
)
def test_without_noise_quantiles_are_in_the_bin_of_a_value(values: list[float], fourth: int) -> None:
    at = Fraction(fourth, 4)
    plan = plan_of(Aggregate("quantile", "q", of=SPEED, quantile=at), rows=1, epsilon=2**19)
    table = {"flow": worlds.arrow("flow", [{"who": who, "speed": value} for who, value in enumerate(values)])}
    (row,) = run._released(plan, bounded(worlds.asked(plan, table)), permit())
    ordered = sorted(values)
    wanted = ordered[max(0, -(-fourth * len(values) // 4) - 1)]
    width = float(plan.measures[0].of.width)  # type: ignore[union-attr]
    assert abs(row["q"] - wanted) <= width
    assert row["q_low"] - 1e-9 <= wanted <= row["q_high"] + 1e-9


# Many draws over one exact answer: a group for each, all alike


def drawn(
    figure: Aggregate, law: str, exact_numbers: tuple[Any, ...], **terms: Any
) -> tuple[pa.Table, Planned]:
    plan = plan_of(figure, keys=(Key("hour", Column("hour"), tuple(range(DRAWS))),), mechanism=law, **terms)
    assert len(exact_numbers) == len(plan.measures)
    values = tuple(
        np.broadcast_to(np.asarray(one), (DRAWS, *np.shape(one))).astype(np.int64) for one in exact_numbers
    )
    return run._released(plan, Cells(values), permit(5)).table, plan


def numbers(table: pa.Table, name: str) -> Any:
    return table.column(name).to_numpy(zero_copy_only=False).astype(float)


def covered(table: pa.Table, name: str, truth: float) -> float:
    low, high = numbers(table, f"{name}_low"), numbers(table, f"{name}_high")
    return float(((low <= truth + 1e-9) & (truth - 1e-9 <= high)).mean())


def moments(kind: str, step: Fraction = Fraction(1, 2)) -> tuple[tuple[int, ...], float, float]:
    """Return exact numbers of 20,000 rows in steps of a half, their mean and their variance."""
    plan = plan_of(Aggregate("variance", "v", of=SPEED))
    centre = plan.measures[1].centre
    values = np.repeat([80, 120, 100], [8000, 10_000, 2000]) - centre
    sums = (len(values), int(values.sum()), int((values.astype(object) ** 2).sum()))
    mean = (float(values.mean()) + centre) / 2
    variance = float(values.var()) / 4
    return sums[: {"mean": 2, "variance": 3, "stddev": 3}[kind]], mean, variance


CASES = [("count", (500,), 500.0), ("units", (300,), 300.0), ("sum", (70_000,), 35_000.0)]


@pytest.mark.parametrize("law", ["laplace", "gaussian"])
@pytest.mark.parametrize(("kind", "sums", "truth"), CASES, ids=[case[0] for case in CASES])
def test_counts_and_sums_are_unbiased_and_covered(law: str, kind: Any, sums: Any, truth: float) -> None:
    figure = Aggregate(kind, "x", of=SPEED if kind == "sum" else None)
    table, _ = drawn(figure, law, sums, epsilon=Fraction(1, 10))
    values, error = numbers(table, "x"), numbers(table, "x_error")[0]
    assert abs(values.mean() - truth) < 4 * error / DRAWS**0.5
    assert values.std() == pytest.approx(error, rel=0.06)
    assert 0.94 <= covered(table, "x", truth) <= 0.96


@pytest.mark.parametrize("law", ["laplace", "gaussian"])
@pytest.mark.parametrize("kind", ["mean", "variance", "stddev"])
def test_means_and_variances_are_covered(law: str, kind: Any) -> None:
    sums, mean, variance = moments(kind)
    truth = {"mean": mean, "variance": variance, "stddev": variance**0.5}[kind]
    table, _ = drawn(Aggregate(kind, "x", of=SPEED), law, sums)
    assert numbers(table, "x").mean() == pytest.approx(truth, rel=0.01)
    assert 0.94 <= covered(table, "x", truth) <= 0.96


@pytest.mark.parametrize("law", ["laplace", "gaussian"])
def test_quantiles_are_covered(law: str) -> None:
    """Ends lie on bins, so that intervals hold a little more often than they say, and never less."""
    plan = plan_of(Aggregate("quantile", "x", of=SPEED, quantile=Fraction(1, 2)))
    grid = plan.measures[0].of
    assert grid is not None
    bins = np.zeros(grid.count, int)  # type: ignore[union-attr]
    bins[100:160] = 40
    truth = float(grid.low + 130 * grid.width)  # type: ignore[union-attr]
    table, _ = drawn(Aggregate("quantile", "x", of=SPEED, quantile=Fraction(1, 2)), law, (bins,))
    assert covered(table, "x", truth) >= 0.94


@pytest.mark.parametrize("law", ["laplace", "gaussian"])
def test_totals_are_covered(law: str) -> None:
    keys = (Key("hour", Column("hour"), tuple(range(200))), Key("place", Column("place")))
    plan = plan_of(Aggregate("count", "x"), keys=keys, rollup=True, mechanism=law, integers=False)
    held, seen, off = {"leaf": 0, "part": 0}, {"leaf": 0, "part": 0}, []
    for seed in range(20):
        for row in run._released(plan, Cells((np.full(800, 50),)), permit(seed)):
            level = "leaf" if row["place"] is not None else "part" if row["hour"] is not None else ""
            truth = {"leaf": 50, "part": 200, "": 40_000}[level]
            if level:
                seen[level] += 1
                held[level] += row["x_low"] - 1e-9 <= truth <= row["x_high"] + 1e-9
                off.append((row["x"] - truth) / row["x_error"])
    assert all(0.94 <= held[level] / seen[level] <= 0.96 for level in held), (held, seen)
    assert abs(np.mean(off)) < 4 / len(off) ** 0.5


@pytest.mark.parametrize("factor", [Fraction(3, 4), Fraction(4, 3)])
def test_noise_of_another_scale_is_found(factor: Fraction, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = run._add
    monkeypatch.setattr(
        run,
        "_add",
        lambda noise, draw, values: honest(noise, replace(draw, scale=draw.scale * factor), values),
    )
    table, _ = drawn(Aggregate("count", "x"), "laplace", (500,), epsilon=Fraction(1, 10))
    assert not 0.94 <= covered(table, "x", 500) <= 0.96
    assert numbers(table, "x").std() != pytest.approx(numbers(table, "x_error")[0], rel=0.06)
    sums, mean, _ = moments("mean")
    table, _ = drawn(Aggregate("mean", "x", of=SPEED), "laplace", sums)
    assert not 0.94 <= covered(table, "x", mean) <= 0.96
