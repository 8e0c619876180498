"""What an aggregate needs, and how far one unit moves it, beside all that a unit could do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest
from sfumato.queries.bounded import Measure
from sfumato.queries.measures import Sensitivity, distinct, grid, needs, sensitivity
from sfumato.queries.model import Aggregate, Binned, Call, Column, Constant
from sfumato.queries.quantiles import levels

V = Column("v")
BOUNDS = (Fraction(0), Fraction(130))


def test_aggregates_need_the_sums_they_are_made_of() -> None:
    kinds = {
        kind: [one.kind for one in needs(Aggregate(kind, "x", V, quantile=Fraction(1, 2)), BOUNDS)]
        for kind in ("count", "units", "sum", "mean", "variance", "stddev", "quantile")
    }
    assert kinds == {
        "count": ["rows"],
        "units": ["units"],
        "sum": ["sum"],
        "mean": ["rows", "sum"],
        "variance": ["rows", "sum", "squares"],
        "stddev": ["rows", "sum", "squares"],
        "quantile": ["bins"],
    }


def test_a_mean_takes_values_from_the_middle_and_leaves_nulls_out() -> None:
    where = Call(">", (Column("x"), Constant(3)))
    rows, total = needs(Aggregate("mean", "m", V, where), BOUNDS)
    assert rows == Measure("rows", V, where)
    assert total == Measure("sum", V, where, 0, 13_000, Fraction(1, 100), True)
    assert total.centre == 6500
    assert not needs(Aggregate("sum", "s", V), BOUNDS)[0].centred


def test_bounds_off_the_grid_are_widened() -> None:
    (total,) = needs(Aggregate("sum", "s", V), (Fraction(-7, 2), Fraction(10, 3)), Fraction(1))
    assert (total.low, total.high) == (-4, 4)


def test_what_aggregates_share_is_measured_once() -> None:
    mean, deviation = (needs(Aggregate(kind, "x", V), BOUNDS) for kind in ("mean", "stddev"))
    assert distinct([mean, deviation]) == deviation
    one, true, real = (
        needs(Aggregate("count", "n", None, Call("=", (V, Constant(value))))) for value in (1, True, 1.0)
    )
    assert len(distinct([one, true, real, one])) == 3


@given(
    low=st.fractions(-1000, 1000, max_denominator=1000),
    span=st.fractions(Fraction(1, 10**6), 10**12),
    whole=st.booleans(),
)
def test_the_default_grid_is_fine_and_fits(low: Fraction, span: Fraction, whole: bool) -> None:
    step = grid((low, low + span), whole=whole)
    if whole and step == 1:
        assert span <= 100_000
    else:
        assert 10_000 <= span / step < 100_000
        # A power of ten.
        assert 1 in (step.numerator, step.denominator)
        assert set(str(max(step, 1 / step))) <= {"1", "0"}


@pytest.mark.parametrize(
    ("bounds", "step", "says"),
    [((1, 1), None, "must rise"), ((0, 1), 0, "above 0"), ((0, 1), Fraction(1, 10**7), "1e-06 or more")],
)
def test_a_grid_that_makes_no_sense_is_refused(
    bounds: tuple[int, int], step: Fraction | None, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        grid((Fraction(bounds[0]), Fraction(bounds[1])), step)


@pytest.mark.parametrize(
    ("aggregate", "bounds", "says"),
    [
        (Aggregate("sum", "s", V), None, "needs bounds"),
        (Aggregate("mean", "m"), BOUNDS, "needs something"),
        (Aggregate("quantile", "q", V), BOUNDS, r"0\.\.1"),
        (Aggregate("quantile", "q", V, quantile=Fraction(3, 2)), BOUNDS, r"0\.\.1"),
    ],
)
def test_an_aggregate_without_what_it_needs_is_refused(
    aggregate: Aggregate, bounds: tuple[Fraction, Fraction] | None, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        needs(aggregate, bounds)


# Sensitivity


def shares(measure: Measure, rows: int) -> list[tuple[int, ...]]:
    """Return all that one unit may add to one cell: one number, or one for each bin."""
    values = range(measure.low - measure.centre, measure.high - measure.centre + 1)
    if measure.kind == "units":
        return [(0,), (1,)]
    if measure.kind == "rows":
        return [(count,) for count in range(rows + 1)]
    if measure.kind == "bins":
        count = measure.of.count  # type: ignore[union-attr]
        return [one for one in itertools.product((0, 1), repeat=count) if sum(one) <= rows]
    power = 2 if measure.kind == "squares" else 1
    found = set()
    for count in range(rows + 3):
        for picked in itertools.combinations_with_replacement(values, count):
            total = sum(value**power for value in picked)
            if count > rows:
                total = (1 if total > 0 else -1) * (abs(total) * rows // count)
            found.add((total,))
    return sorted(found)


def vectors(measure: Measure, groups: int, rows: int, cells: int) -> Iterator[np.ndarray]:
    """Return all that one unit may add to all cells: (cells, bins)."""
    options = shares(measure, rows)
    none = tuple(0 for _ in options[0])
    extreme = [min(options), max(options), none]
    for one in itertools.product(options if cells <= 2 else dict.fromkeys(extreme), repeat=cells):
        if sum(any(part) for part in one) <= groups:
            yield np.array(one)


def moved(change: np.ndarray, merged: int, width: int) -> Sensitivity:
    cells, bins = change.shape
    counted = change.reshape(cells // merged, merged, bins // width, width).sum((1, 3))
    return Sensitivity(int(abs(counted).max()), int(abs(counted).sum()), int((counted**2).sum()))


BINS = Measure("bins", Binned(V, Fraction(0), Fraction(1), 4))
MEASURES = [
    Measure("units"),
    Measure("rows"),
    Measure("sum", V, None, 0, 3),
    Measure("sum", V, None, -2, 1),
    Measure("sum", V, None, 2, 3),
    Measure("sum", V, None, -1, 2, centred=True),
    Measure("squares", V, None, 0, 4, centred=True),
    BINS,
]
SHAPES = [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (4, 2, 1), (4, 2, 2), (4, 3, 2), (4, 2, 4)]


def extremes(
    measure: Measure, shape: tuple[int, int, int], rows: int, relation: str, width: int
) -> Sensitivity:
    """Return the largest changes of all that can happen."""
    cells, groups, merged = shape
    found = list(vectors(measure, groups, rows, cells))
    if len(found) > 60:
        found = found[:30] + found[-30:]
    others = found if relation == "replace-one" else [np.zeros_like(found[0])]
    all_of = [moved(one - other, merged, width) for one in found for other in others]
    return Sensitivity(*(max(getattr(one, name) for one in all_of) for name in ("linf", "l1", "l2_squared")))


@pytest.mark.parametrize("relation", ["add-or-remove-one", "replace-one"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("measure", MEASURES, ids=lambda one: f"{one.kind} {one.low}..{one.high}")
@pytest.mark.parametrize("rows", [1, 2])
def test_nothing_that_a_unit_can_do_moves_more_than_that(
    measure: Measure, shape: tuple[int, int, int], rows: int, relation: str
) -> None:
    cells, groups, merged = shape
    widths = [1, 2, 4] if measure.kind == "bins" else [1]
    for width in widths:
        bound = sensitivity(
            measure,
            groups,
            rows,
            relation,
            cells=cells,
            merged=merged,
            width=width,  # type: ignore[arg-type]
        )
        most = extremes(measure, shape, rows, relation, width)
        assert most.linf <= bound.linf
        assert most.l1 <= bound.l1
        assert most.l2_squared <= bound.l2_squared
        if relation == "add-or-remove-one" and width == 1 and cells <= 2:
            assert most == bound, "a bound that nothing reaches wastes accuracy"


def test_a_bound_for_one_group_less_is_too_small() -> None:
    # What a truncation that keeps k groups and charges for k - 1 would be.
    shape, measure = (2, 2, 1), Measure("rows")
    most = extremes(measure, shape, 2, "add-or-remove-one", 1)
    wrong = sensitivity(measure, shape[1] - 1, 2, cells=2)
    assert most.l1 > wrong.l1
    assert most.l2_squared > wrong.l2_squared


def test_a_bound_that_forgets_that_cells_are_merged_is_too_small() -> None:
    most = extremes(Measure("rows"), (4, 2, 2), 1, "add-or-remove-one", 1)
    assert most.l2_squared > sensitivity(Measure("rows"), 2, 1, cells=4).l2_squared


@settings(max_examples=50)
@given(
    groups=st.integers(1, 40),
    rows=st.integers(1, 9),
    low=st.integers(-500, 500),
    span=st.integers(1, 900),
    merged=st.integers(1, 50),
)
def test_replacing_is_at_most_twice_adding(groups: int, rows: int, low: int, span: int, merged: int) -> None:
    for centred in (False, True):
        measure = Measure("sum", V, None, low, low + span, centred=centred)
        one = sensitivity(measure, groups, rows, merged=merged)
        two = sensitivity(measure, groups, rows, "replace-one", merged=merged)
        assert two.l1 == 2 * one.l1
        assert 2 * one.l2_squared <= two.l2_squared <= 4 * one.l2_squared
        assert one.l2_squared <= one.linf * one.l1


def test_more_groups_than_cells_cost_nothing() -> None:
    assert sensitivity(Measure("rows"), 9, 1, cells=4) == sensitivity(Measure("rows"), 4, 1)
    assert sensitivity(Measure("rows"), 9, 3, "replace-one", cells=1) == Sensitivity(3, 3, 9)


def test_every_level_of_a_quantile_tree_has_the_same_l1() -> None:
    (bins,) = needs(Aggregate("quantile", "q", V, quantile=Fraction(1, 2)), BOUNDS, Fraction(1, 10))
    count = bins.of.count  # type: ignore[union-attr]
    found = [sensitivity(bins, 3, 2, width=count // nodes) for nodes in levels(count)]
    assert {one.l1 for one in found} == {6}
    assert [one.l2_squared for one in found] == [12, 12, 6]


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="groups must be 1 or more"):
        sensitivity(Measure("rows"), 0, 1)
