"""Which exact sums an aggregate is made of, on which grid, and how far one privacy unit can move them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from sfumato.core.errors import InvalidRequest
from sfumato.queries import quantiles
from sfumato.queries.bounded import Measure
from sfumato.queries.model import Aggregate, Binned

Bounds = tuple[Fraction, Fraction]
Relation = Literal["add-or-remove-one", "replace-one"]

#: A default step cuts the range into at least this many: rounding moves a value by 1/20,000 of the range at
#: most.
STEPS = 10_000
#: Whole numbers keep the step 1 up to this range, so that sums of 10^9 squares still fit 64 bits.
WHOLE = 100_000
#: A finer declared step than this could overflow sums of squares.
MOST_STEPS = 1_000_000
#: Steps from 0 up to which engines reckon exactly.
MOST_FAR = 1 << 53


def grid(bounds: Bounds, step: Fraction | None = None, *, whole: bool = False) -> Fraction:
    """Return the step of the public grid that values are rounded to.

    It costs no accuracy: noise is in proportion to the range, whatever the step.

    >>> grid((Fraction(0), Fraction(130))), grid((Fraction(0), Fraction(120)), whole=True)
    (Fraction(1, 100), Fraction(1, 1))

    Args:
        bounds: of the values.
        step: the declared one; None: the largest power of ten that cuts the range into `STEPS` or more.
        whole: values are whole numbers.

    Raises:
        InvalidRequest: bounds without a range, a step that is not above 0, or too fine for the range.
    """
    low, high = bounds
    if not low < high:
        raise InvalidRequest(f"bounds must rise, got {_text(low)}..{_text(high)}: give low, then high")
    if step is not None:
        if step <= 0:
            raise InvalidRequest(f"a step must be above 0, got {_text(step)}")
        if (high - low) / step > MOST_STEPS:
            raise InvalidRequest(
                f"a step of {_text(step)} cuts {_text(low)}..{_text(high)} into over {MOST_STEPS:,} parts: "
                f"give {_text((high - low) / MOST_STEPS)} or more, or narrower bounds"
            )
        return step
    if whole and high - low <= WHOLE:
        return Fraction(1)
    return _power_of_ten((high - low) / STEPS)


def needs(
    aggregate: Aggregate,
    bounds: Bounds | None = None,
    step: Fraction | None = None,
    *,
    whole: bool = False,
) -> tuple[Measure, ...]:
    """Return the measures of an aggregate, in the order that `finish` takes them.

    >>> from sfumato.queries.model import Column
    >>> [m.kind for m in needs(Aggregate("mean", "m", Column("speed")), (Fraction(0), Fraction(130)))]
    ['rows', 'sum']

    Args:
        bounds: of the values, for everything but `count` and `units`.
        step: the declared step of the values, if there is one.
        whole: values are whole numbers.

    Raises:
        InvalidRequest: no bounds, no value to sum, or no quantile, where the aggregate needs one.
    """
    of, where = aggregate.of, aggregate.where
    if aggregate.kind == "count":
        return (Measure("rows", of, where),)
    if aggregate.kind == "units":
        return (Measure("units", of, where),)
    if of is None or bounds is None:
        lacks = "something to work on" if of is None else "bounds, such as bounds=(0, 100)"
        raise InvalidRequest(f"{aggregate.name}: a {aggregate.kind} needs {lacks}")
    declared, step = step, grid(bounds, step, whole=whole)
    if aggregate.kind == "quantile":
        if aggregate.quantile is None or not 0 <= aggregate.quantile <= 1:
            raise InvalidRequest(f"{aggregate.name}: a quantile lies in 0..1, got {aggregate.quantile}")
        low, width, count = quantiles.bins(bounds, declared, whole=whole)
        return (Measure("bins", Binned(of, low, width, count), where),)
    low_steps, high_steps = math.floor(bounds[0] / step), math.ceil(bounds[1] / step)
    if max(-low_steps, high_steps) > MOST_FAR:
        raise InvalidRequest(
            f"{aggregate.name}: values of {_text(bounds[0])}..{_text(bounds[1])} are not exact in steps of "
            f"{_text(step)}: take away what they have in common, or give wider bounds"
        )

    def moment(kind: Literal["sum", "squares"], centred: bool) -> Measure:
        return Measure(kind, of, where, low_steps, high_steps, step, centred)

    if aggregate.kind == "sum":
        return (moment("sum", False),)
    first = (Measure("rows", of, where), moment("sum", True))
    return first if aggregate.kind == "mean" else (*first, moment("squares", True))


def distinct(needed: Iterable[tuple[Measure, ...]]) -> tuple[Measure, ...]:
    """Return every measure once, in order of appearance: aggregates share the noise of what they both need.

    >>> from sfumato.queries.model import Column
    >>> speed = needs(Aggregate("mean", "m", Column("v")), (Fraction(0), Fraction(9)))
    >>> len(distinct([speed, speed, needs(Aggregate("count", "n"))]))
    3
    """
    return tuple({key(measure): measure for one in needed for measure in one}.values())


def key(measure: Measure) -> str:
    """Return what tells measures apart; Python takes 1, 1.0 and True for equal, and a filter may not."""
    return repr(measure)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How far one privacy unit moves the vector of one measure over all cells: exact upper bounds.

    Args:
        linf: the largest change of one number; l1: the sum of changes; l2_squared: the sum of their squares.
    """

    linf: int
    l1: int
    l2_squared: int


def sensitivity(
    measure: Measure,
    groups: int,
    rows: int,
    relation: Relation = "add-or-remove-one",
    *,
    cells: int | None = None,
    merged: int = 1,
    width: int = 1,
) -> Sensitivity:
    """Return how far one privacy unit moves a measure.

    >>> sensitivity(Measure("rows"), groups=5, rows=2)
    Sensitivity(linf=2, l1=10, l2_squared=20)

    Guarantee: an upper bound for all tables. Proof. Bounding chooses by a hash that depends on the unit
    alone, so a unit that comes or goes changes its own share and no other. That share is a vector x over
    (cell, bin) with at most K entries that are not 0: k cells, times r bins for `bins`. Each entry lies in
    [-d, u]: units and bins [0, 1]; rows [0, r]; sums over min(n, r) rows, or scaled from n down to r, are
    within r times the extremes of v - centre, or of its square. Let p = max(d, u).

    A counted number adds up `merged` neighbouring cells and `width` bins; so m = min(k, merged) *
    (min(r, width) for bins) entries of x at most fall together, g_j of them in number j: sum g_j <= K,
    g_j <= m. Squares are convex, so sum g_j^2 <= G = floor(K / m) m^2 + (K mod m)^2.

    Add-or-remove-one: |change_j| <= p g_j. Hence linf = p m, l1 = p K, l2^2 = p^2 G.

    Replace-one: the change is x - y of two such vectors, with g_j and h_j. linf: (d + u) m, since x_j and
    -y_j lie in [-d m, u m] and [-u m, d m]. l1: the triangle inequality, 2 p K. l2^2: where x_j and y_j have
    one sign, (x_j - y_j)^2 <= max(x_j^2, y_j^2); else it is at most (u g_j + d h_j)^2 or (d g_j + u h_j)^2.
    Both are at most (d^2 + u^2)(g_j^2 + h_j^2) by Cauchy and Schwarz: 2 (d^2 + u^2) G in all. Where there is
    one number only, l1 = linf and l2^2 = linf^2.

    Args:
        groups: k, cells that a unit counts in; rows: r, of its rows in each.
        cells: how many cells there are, if that is public: k is no more than that.
        merged: how many cells were added up into each, for totals of a rollup.
        width: how many bins were added up into each, for the upper levels of a quantile's tree.

    Raises:
        InvalidRequest: one of them is below 1.
    """
    for name, value in {"groups": groups, "rows": rows, "merged": merged, "width": width}.items():
        if value < 1:
            raise InvalidRequest(f"{name} must be 1 or more, got {value}")
    groups = groups if cells is None else max(1, min(groups, cells))
    binned = measure.kind == "bins"
    down, up = _extremes(measure, rows)
    peak = max(down, up)
    entries = groups * (rows if binned else 1)
    together = min(groups, merged) * (min(rows, width) if binned else 1)
    squares = entries // together * together**2 + (entries % together) ** 2
    alone = cells is not None and cells <= merged and not binned
    if relation == "add-or-remove-one":
        return Sensitivity(peak * together, peak * entries, peak**2 * squares)
    most = (down + up) * together
    if alone:
        return Sensitivity(most, most, most**2)
    return Sensitivity(most, 2 * peak * entries, 2 * (down**2 + up**2) * squares)


def _extremes(measure: Measure, rows: int) -> tuple[int, int]:
    """Return how far one unit takes one cell (or bin of it) down and up."""
    low, high = measure.low - measure.centre, measure.high - measure.centre
    match measure.kind:
        case "units" | "bins":
            return 0, 1
        case "rows":
            return 0, rows
        case "sum":
            return rows * max(0, -low), rows * max(0, high)
        case "squares":
            return 0, rows * max(low**2, high**2)


def _power_of_ten(most: Fraction) -> Fraction:
    """Return the largest power of ten that is not above `most`."""
    power = math.floor(math.log10(most))
    step = Fraction(10) ** (power + 1)
    while step > most:
        step /= 10
    return step


def _text(value: Fraction) -> str:
    return f"{float(value):g}"
