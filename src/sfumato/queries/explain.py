"""What a question would do, step by step, in words and as data: before anything is read or charged."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import InvalidRequest
from sfumato.core.numbers import brief, text
from sfumato.queries import laws
from sfumato.queries.expected import Curve, Expected, expected, finest, other_prices, short
from sfumato.queries.plan import NAMES, Planned
from sfumato.queries.pricing import Draw
from sfumato.queries.wording import expression, plural, spelled

if TYPE_CHECKING:
    from sfumato.queries.bounded import Measure
    from sfumato.queries.model import Aggregate, Key
    from sfumato.queries.standing import Standing

#: Of these the text has a line.
TOLD = frozenset(Fraction(one) for one in ("1/10", "1/3", "1", "3", "10"))
#: Public values named in the text.
NAMED = 6
#: Characters of a line.
LINE = 100


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: what it is called, what happens there, and the same as data."""

    name: str
    lines: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A question's steps in order, its price and how exact its answer will be.

    Args:
        question: as SQL.
        stages: in the order in which they happen.
        expected: per figure.
        curve: (epsilon, {figure: half the width of its 95 % interval}): what another price would buy.
        epsilon: what it costs.
    """

    question: str
    stages: tuple[Stage, ...]
    expected: tuple[Expected, ...]
    curve: Curve = ()
    epsilon: Fraction = Fraction(0)

    @classmethod
    def of(
        cls,
        planned: Planned,
        standing: Standing | None = None,
        replan: Callable[[Fraction], Planned] | None = None,
        *,
        answered: bool = False,
    ) -> Explanation:
        """Explain a planned question; nothing is read and nothing is charged.

        Args:
            standing: of the budget, with this question.
            replan: gives the plan at another epsilon, for the curve.
            answered: the same question was answered before, and costs nothing now.
        """
        figures = tuple(expected(planned, one) for one in planned.query.aggregates)
        curve = other_prices(planned, replan) if replan is not None else ()
        stages = (
            _read(planned),
            _rows(planned),
            _groups(planned),
            _people(planned),
            _figures(planned),
            _noise(planned),
            _exactness(figures, curve, planned),
            _finish(planned),
            _cost(planned, standing, answered),
        )
        question = str(planned.plan.parameters["question"])
        return cls(question, stages, figures, curve, planned.epsilon)

    def __str__(self) -> str:
        margin = max(len(stage.name) for stage in self.stages) + 5
        lines = [*textwrap.wrap(self.question, LINE), ""]
        for index, stage in enumerate(self.stages, 1):
            told = [part for line in stage.lines for part in textwrap.wrap(line, LINE - margin)]
            heads = [f"{index}. {stage.name}", *("" for _ in told[1:])]
            lines += [f"{head:<{margin}}{part}" for head, part in zip(heads, told, strict=True)]
        return "\n".join(lines)

    def to_svg(self) -> str:
        """Return a picture: the error of each count and sum against epsilon.

        Raises:
            InvalidRequest: no figure's error is known beforehand.
        """
        from sfumato.queries.plots import curve

        names = [one.name for one in self.expected if one.half_width is not None]
        if not names or not self.curve:
            raise InvalidRequest(
                "a picture of errors needs a count or a sum: the error of other figures depends on the data"
            )
        lines = [
            (name, [(float(at), widths[name]) for at, widths in self.curve if widths.get(name)])
            for name in names
        ]
        return curve(lines, float(self.epsilon))

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "question": self.question,
            "stages": [
                {"stage": stage.name, "text": list(stage.lines), **stage.facts} for stage in self.stages
            ],
            "expected": [
                {
                    "name": one.name,
                    "half_width": one.half_width,
                    "per_rows": {str(rows): width for rows, width in one.per_rows.items()},
                    "text": one.says,
                }
                for one in self.expected
            ],
            "curve": [{"epsilon": text(epsilon), **widths} for epsilon, widths in self.curve],
        }


def _read(planned: Planned) -> Stage:
    lines = []
    for alias, table in planned.tables.items():
        called = f" as {alias}" if alias not in (table.name, table.version) else ""
        lines.append(f"{table.version}{called}. Rows without a {table.unit} are left out.")
    if planned.query.joins:
        lines.append(f"They are joined row by row, where they are about the same {planned.unit}.")
    lines.append(f"Purpose: {planned.plan.purpose}.")
    facts = {"tables": [table.version for table in planned.tables.values()], "purpose": planned.plan.purpose}
    return Stage("read", tuple(lines), facts)


def _rows(planned: Planned) -> Stage:
    where = planned.query.where
    said = expression(where) if where is not None else ""
    return Stage("rows", (f"Those where {said}." if said else "All.",), {"where": said})


def _groups(planned: Planned) -> Stage:
    keys = planned.keys
    if planned.private:
        names = ", ".join(one.name for one in keys)
        return Stage(
            "groups",
            (
                f"By {names}; which ones occur is not public. A group is told only if its noisy number of "
                f"{plural(planned.unit)} reaches {planned.threshold}: small groups are left out.",
            ),
            {"keys": [one.name for one in keys], "private": True, "threshold": planned.threshold},
        )
    if not keys:
        return Stage("groups", ("One: all rows together.",), {"groups": 1, "keys": []})
    lines = [f"{planned.cells:,}, all of them public: each is in the answer, also where nobody is in it."]
    lines += [f"{one.name}: {_values(one)}" for one in keys]
    if planned.query.rollup:
        lines.append("And the totals over the last keys, one by one, to that of everything.")
    return Stage("groups", tuple(lines), {"groups": planned.cells, "keys": [one.name for one in keys]})


def _values(one: Key) -> str:
    values = one.values or ()
    named = [spelled(value) for value in values[:NAMED]]
    if len(values) > NAMED:
        return f"{len(values):,} values, {named[0]} to {spelled(values[-1])}"
    return ", ".join(named)


def _people(planned: Planned) -> Stage:
    unit, groups, rows = planned.unit, planned.groups, planned.rows
    whole = not planned.private and groups >= planned.cells
    inside = "" if not planned.keys else f" in at most {_count(groups, 'group')}, and"
    lines = [f"One {unit} counts{inside} with at most {_count(rows, 'row')}{' in each' if inside else ''}."]
    if whole and inside:
        lines.append("No group of anybody is left out.")
    elif not whole:
        lines.append(
            f"Of who is in more groups, {groups} chosen by chance count. How much that leaves out is not "
            "known: it follows from the data."
        )
    where = " in a group counts there" if inside else " counts"
    lines.append(f"Who has more than {_count(rows, 'row')}{where} as {rows}; how many do is not known.")
    facts = {
        "unit": unit,
        "groups": groups,
        "rows": rows,
        "groups_left_out": "nothing" if whole else "not known",
    }
    return Stage(f"one {unit}", tuple(lines), facts)


def _figures(planned: Planned) -> Stage:
    lines, facts = [], []
    for one, measures in zip(planned.query.aggregates, planned.needed, strict=True):
        told = [finest(planned, measure) for measure in measures]
        bounds = next((measure for measure in measures if measure.high > measure.low), None)
        clamped = ""
        if bounds is not None:
            low, high, step = bounds.low * bounds.step, bounds.high * bounds.step, bounds.step
            clamped = f", values held within {_signed(low)} to {_signed(high)}, to the nearest {brief(step)}"
        moved = [
            f"{_MEASURES[measure.kind]} by at most {_moved(measure, draw, alone=not planned.keys)}"
            for measure, draw in zip(measures, told, strict=True)
        ]
        lines.append(f"{one.name}: {_kind(one)}{clamped}. One {planned.unit} moves {'; '.join(moved)}.")
        facts.append(
            {
                "name": one.name,
                "kind": one.kind,
                "measures": [
                    {
                        "kind": m.kind,
                        "step": text(m.step),
                        "linf": d.linf,
                        "l1": d.l1,
                        "l2_squared": d.l2_squared,
                    }
                    for m, d in zip(measures, told, strict=True)
                ],
            }
        )
    return Stage("figures", tuple(lines), {"figures": facts})


_MEASURES = {
    "units": "the number of different units",
    "rows": "the number of rows",
    "sum": "the sum",
    "squares": "the sum of squares",
    "bins": "each count of its histogram",
}
_KINDS = {
    "count": "the number of rows",
    "sum": "the sum of",
    "mean": "the mean of",
    "variance": "the variance of",
    "stddev": "the standard deviation of",
}


def _kind(one: Aggregate) -> str:
    if one.kind == "units":
        said = "the number of different units"
    elif one.kind == "quantile":
        said = f"the value that {float(one.quantile or 0):.0%} of {expression(one.of)} do not pass"
    else:
        said = _KINDS[one.kind]
        if one.of is not None:
            said += f" {expression(one.of)}" if one.kind != "count" else f" with {expression(one.of)}"
    return said + (f", where {expression(one.where)}" if one.where is not None else "")


def _noise(planned: Planned) -> Stage:
    lines: list[str] = []
    facts: list[dict[str, Any]] = []
    for draw in planned.draws:
        measure = planned.measures[draw.measure]
        unit = measure.step**2 if measure.kind == "squares" else measure.step
        spread = float(laws.deviation(draw.law, draw.scale)) * float(unit)
        facts.append(
            {"measure": measure.kind, "level": draw.level, "scale": text(draw.scale), "deviation": spread}
        )
    for index, measure in enumerate(planned.measures):
        spreads = [
            one["deviation"] for one, draw in zip(facts, planned.draws, strict=True) if draw.measure == index
        ]
        levels = f", at {len(spreads)} levels" if len(spreads) > 1 else ""
        lines.append(f"{_MEASURES[measure.kind]}: standard deviation {short(max(spreads))}{levels}")
    law, count = NAMES[planned.law], len(planned.draws)
    head = f"{law[:1].upper()}{law[1:]}, exact, on whole numbers; drawn once, after the charge."
    if count > 1:
        head += f" {count} numbers per group or level share the price equally."
    return Stage("noise", (head, *lines), {"law": planned.law, "draws": facts})


def _exactness(figures: Sequence[Expected], curve: Curve, planned: Planned) -> Stage:
    lines = [f"{one.name}: {one.says}" for one in figures]
    told = [
        f"at epsilon {brief(epsilon)}: " + ", ".join(f"{name} +- {short(w)}" for name, w in widths.items())
        for epsilon, widths in curve
        if epsilon / planned.epsilon in TOLD and widths
    ]
    if told:
        lines += ["Another price would buy:", *told]
    return Stage("error", ("By the noise alone; 95 times of 100 within:", *lines))


def _finish(planned: Planned) -> Stage:
    terms, query, lines = planned.terms, planned.query, []
    if terms.integers and any(one.kind in ("count", "units") for one in query.aggregates):
        lines.append("Counts are whole numbers.")
    if terms.non_negative:
        lines.append("Counts below 0 become 0, which makes small ones too large on average.")
    if query.rollup and terms.consistent:
        lines.append("Totals are made to add up.")
    lines += [f"Only groups where {name} {op} {value:g} are shown." for name, op, value in query.having]
    if query.order:
        by = [one.by + (" downwards" if one.descending else "") for one in query.order]
        lines.append(f"Sorted by {', '.join(by)}.")
    if query.limit is not None:
        lines.append(f"The first {query.limit} groups are shown.")
    if lines:
        lines.append("All of this is done to noisy numbers, and costs nothing.")
    return Stage("finish", tuple(lines) or ("Nothing is changed.",))


def _cost(planned: Planned, standing: Standing | None, answered: bool) -> Stage:
    price = f"epsilon {brief(planned.epsilon)}"
    if planned.delta:
        price += f" at delta {brief(planned.delta)}"
    if planned.rho:
        price += f" (rho {text(planned.rho)})"
    payer = f"{planned.plan.population}/{planned.plan.share}"
    lines = [f"{price}, of {payer}, for the whole statement."]
    if answered:
        lines = [f"Nothing: it was answered before, for {price} of {payer}, and that answer is given again."]
    elif standing is not None:
        left, budget = brief(standing.left, up=False), brief(standing.budget, up=False)
        then = f"{brief(standing.left_after, up=False)} afterwards" if standing.fits else "no room for this"
        lines.append(f"{standing.account} has epsilon {left} of {budget} left now, and {then}.")
        taken = standing.after - standing.before
        if standing.fits and taken > planned.epsilon * Fraction(101, 100):
            lines.append(
                "This share adds up whole curves of loss, not epsilons: a first question takes more of it "
                f"than its epsilon (here {brief(taken)}), and many together take less than their sum."
            )
    lines.append(planned.plan.statement)
    facts: dict[str, Any] = {
        "epsilon": text(planned.epsilon),
        "delta": text(planned.delta),
        "rho": text(planned.rho),
        "population": planned.plan.population,
        "share": planned.plan.share,
        "answered_before": answered,
        "statement": planned.plan.statement,
        "limits": list(planned.plan.limits),
    }
    if standing is not None:
        facts["budget"] = standing.to_data()
    return Stage("cost", tuple(lines), facts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _moved(measure: Measure, draw: Draw, *, alone: bool) -> str:
    """Return how far one unit moves a measure, in the units of its values."""
    unit = measure.step**2 if measure.kind == "squares" else measure.step
    most, all_of_it = (short(float(moved * unit)) for moved in (draw.linf, draw.l1))
    return most if alone and measure.kind != "bins" else f"{most} in a group and {all_of_it} in all"


def _signed(value: Fraction) -> str:
    return f"{float(value):.6g}"
