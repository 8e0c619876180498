"""What readers have to know about how figures were finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

from sfumato.mechanisms.exact import Kind
from sfumato.queries import selection
from sfumato.queries.bounded import Measure
from sfumato.queries.model import Binned, Query, Terms


def notes(
    query: Query, needed: Sequence[tuple[Measure, ...]], terms: Terms, missing: Sequence[str]
) -> list[str]:
    """Return notes, a sentence or two each, with the columns that they are about first."""
    return [
        *_grids(query, needed),
        *_totals(query, needed, terms),
        *_few(missing),
        *_chosen(query),
    ]


def few_units(law: Kind, scale: Fraction, least: int, unit: str) -> str:
    """Return what readers have to know about groups that were chosen by a threshold.

    >>> few_units("laplace", Fraction(5), 76, "person")[:58]
    'small groups are left out: one with 87 (unit: person) is s'

    Args:
        law, scale: of the noise on the number of units; least: the threshold; unit: what one is called.
    """
    needed = selection.units_needed(law, scale, least)
    return (
        f"small groups are left out: one with {needed:,} (unit: {unit}) is shown in 95 % of draws, smaller "
        f"ones less often; numbers of units that are little above {least:,} are too large on average"
    )


def _grids(query: Query, needed: Sequence[tuple[Measure, ...]]) -> Iterator[str]:
    grids: dict[str, list[str]] = {}
    for one, measures in zip(query.aggregates, needed, strict=True):
        if said := next(filter(None, map(_grid, measures)), ""):
            grids.setdefault(said, []).append(one.name)
    for said, names in grids.items():
        yield f"{_names(names)}: {said}"


def _grid(measure: Measure) -> str:
    if isinstance(measure.of, Binned):
        return f"read from bins {_text(measure.of.width)} wide"
    if measure.kind != "sum":
        return ""
    low, high = measure.low * measure.step, measure.high * measure.step
    return f"of values clamped to {_text(low)}..{_text(high)} and rounded to {_text(measure.step)}"


def _totals(query: Query, needed: Sequence[tuple[Measure, ...]], terms: Terms) -> Iterator[str]:
    kinds = [(one, measures[0]) for one, measures in zip(query.aggregates, needed, strict=True)]
    totals = [one.name for one, first in kinds if one.kind in ("count", "units", "sum") and first.low >= 0]
    if terms.non_negative and totals:
        yield (
            f"{_names(totals)}: what noise took below 0 is shown as 0, so that figures near 0 are too large "
            "on average"
        )
    if not (query.rollup and query.keys):
        return
    added = [one.name for one in query.aggregates if one.kind in ("count", "sum")]
    if terms.consistent and added:
        yield f"{_names(added)}: totals and their parts were made to add up, which lessens the noise"
    if units := [one.name for one in query.aggregates if one.kind == "units"]:
        yield f"{_names(units)}: one may be in several groups, so that parts add up to more than the total"


def _few(missing: Sequence[str]) -> Iterator[str]:
    if missing:
        yield (
            f"{_names(missing)}: missing where rows are too few to tell under this noise; the interval is "
            "then all that the bounds allow"
        )


def _chosen(query: Query) -> Iterator[str]:
    if query.having or (query.order and query.limit is not None):
        yield (
            "rows were chosen by noisy figures: those shown lean to the side they were chosen for, and fewer "
            "than 95 % of their intervals may hold"
        )


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


def _text(value: Fraction) -> str:
    return f"{float(value):.12g}"
