"""What readers have to know about how figures were finished."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from sfumato.queries.bounded import Measure
from sfumato.queries.model import Binned, Query, Terms


def notes(
    query: Query, needed: Sequence[tuple[Measure, ...]], terms: Terms, missing: Sequence[str]
) -> list[str]:
    """Return notes, one sentence or two each, the columns they are about first."""
    said = [
        line
        for one, measures in zip(query.aggregates, needed, strict=True)
        for line in _grid(one.name, measures)
    ]
    totals = [
        one.name
        for one, measures in zip(query.aggregates, needed, strict=True)
        if one.kind in ("count", "units", "sum") and measures[0].low >= 0
    ]
    if terms.non_negative and totals:
        said.append(
            f"{_names(totals)}: what noise took below 0 is shown as 0, so that figures near 0 are too large on "
            "average; their sums are, too"
        )
    if query.rollup and terms.consistent and query.keys:
        added = [one.name for one in query.aggregates if one.kind in ("count", "sum")]
        if added:
            said.append(
                f"{_names(added)}: totals and their parts were made to add up, which lessens the noise"
            )
    if query.rollup and (units := [one.name for one in query.aggregates if one.kind == "units"]):
        said.append(
            f"{_names(units)}: one may be in several groups, so that parts add up to more than the total"
        )
    if missing:
        said.append(
            f"{_names(missing)}: missing where the rows are too few to tell under this noise; the interval is then "
            "all that the bounds allow"
        )
    if query.having or (query.order and query.limit is not None):
        said.append(
            "rows were chosen by noisy figures: those shown lean to the side they were chosen for, and fewer than "
            "95 % of their intervals may hold"
        )
    return said


def _grid(name: str, measures: Sequence[Measure]) -> list[str]:
    for measure in measures:
        if measure.kind == "sum":
            low, high = measure.low * measure.step, measure.high * measure.step
            return [
                f"{name}: of values clamped to {_text(low)}..{_text(high)} and rounded to {_text(measure.step)}"
            ]
        if isinstance(measure.of, Binned):
            return [f"{name}: read from bins {_text(measure.of.width)} wide"]
    return []


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


def _text(value: Fraction) -> str:
    return f"{float(value):.12g}"
