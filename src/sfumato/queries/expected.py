"""How exact a figure will be, by what is known beforehand: the noise, and not the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from sfumato.core.errors import SfumatoError
from sfumato.queries import laws
from sfumato.queries.measures import key
from sfumato.queries.plan import Planned
from sfumato.queries.pricing import Draw

if TYPE_CHECKING:
    from sfumato.queries.bounded import Measure
    from sfumato.queries.model import Aggregate

#: Epsilons of the curve, as multiples of the one asked for.
CURVE = tuple(Fraction(one) for one in ("1/10", "1/5", "1/3", "1/2", "7/10", "1", "3/2", "2", "3", "5", "10"))
#: The error of a mean is told for groups of so many rows.
ROWS = (100, 1_000, 10_000)


#: (epsilon, {figure: half the width of its 95 % interval}).
Curve = tuple[tuple[Fraction, Mapping[str, float]], ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """How exact a figure will be.

    Args:
        name: of the figure.
        half_width: half of its 95 % interval in every group, by the noise; None: it depends on the data.
        per_rows: of a mean: half the width in a group of so many rows.
        says: the same in words.
    """

    name: str
    half_width: float | None
    per_rows: Mapping[int, float]
    says: str


def expected(planned: Planned, one: Aggregate) -> Expected:
    """Return how exact a figure will be."""
    measures = planned.needed[planned.query.aggregates.index(one)]
    draws = [finest(planned, measure) for measure in measures]
    if one.kind in ("count", "units", "sum"):
        width = laws.interval(draws[0].law, draws[0].scale) * float(measures[0].step)
        return Expected(one.name, width, {}, f"+- {short(width)} in every group, however large it is")
    if one.kind == "mean":
        sums = measures[1]
        wide = [laws.interval(draw.law, draw.scale) for draw in draws]
        # The mean lies within half a range of the centre, where the noise of the number of rows moves it.
        half = float((sums.high - sums.low) * sums.step) / 2
        whole = math.hypot(wide[1] * float(sums.step), wide[0] * half)
        per = {count: whole / count for count in ROWS if count > 3 * wide[0]}
        said = ", ".join(f"+- {short(width)} in a group of {count:,} rows" for count, width in per.items())
        return Expected(
            one.name, None, per, f"at most about {said}" if said else "useless: the noise drowns it"
        )
    if one.kind == "quantile":
        width = laws.interval(draws[0].law, draws[0].scale)
        return Expected(
            one.name,
            None,
            {},
            f"depends on how close the values lie; each count of the histogram is within +- {width}",
        )
    return Expected(one.name, None, {}, "depends on the data; the answer gives its interval")


def other_prices(planned: Planned, replan: Callable[[Fraction], Planned]) -> Curve:
    """Return what other epsilons would buy: half the width of the interval of each count and sum."""
    direct = [one for one in planned.query.aggregates if one.kind in ("count", "units", "sum")]
    if not direct:
        return ()

    def points() -> Iterator[tuple[Fraction, Mapping[str, float]]]:
        for times in CURVE:
            try:
                other = replan(planned.epsilon * times)
            except SfumatoError:  # no such noise, as where epsilon is tiny
                continue
            widths = {one.name: expected(other, one).half_width for one in direct}
            yield (
                planned.epsilon * times,
                {name: width for name, width in widths.items() if width is not None},
            )

    return tuple(points())


def finest(planned: Planned, measure: Measure) -> Draw:
    """Return the draw of a measure in the groups themselves, not in their totals."""
    index = [key(one) for one in planned.measures].index(key(measure))
    draws = [draw for draw in planned.draws if draw.measure == index]
    return draws[-1] if measure.kind == "bins" else max(draws, key=lambda draw: draw.level)


def short(value: float) -> str:
    """Return a number in a few digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
