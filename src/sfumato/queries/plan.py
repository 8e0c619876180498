"""What will be asked, bounded and charged, before anything is read: the plan, its price and its noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from sfumato.core.accounting import Kind as ShareKind
from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.event import ZCDP, ApproxDP, Event, Laplace
from sfumato.core.files import digest_of
from sfumato.core.gate import Plan
from sfumato.core.numbers import brief, text
from sfumato.core.policy import FILE_NAME, Policy, Population
from sfumato.mechanisms.exact import Kind as Law
from sfumato.queries import laws
from sfumato.queries.bounded import Measure
from sfumato.queries.domain import MOST_CELLS, Domain
from sfumato.queries.finish import check as check_finish
from sfumato.queries.measures import Bounds, Relation, distinct, needs, sensitivity
from sfumato.queries.measures import key as key_of
from sfumato.queries.model import Aggregate, Binned, Column, Expr, Key, Query, Terms, walk
from sfumato.queries.pricing import default_delta, rho_for
from sfumato.queries.quantiles import levels
from sfumato.queries.selection import threshold
from sfumato.queries.sql.render import render
from sfumato.queries.tables import Table, evidence, payers

#: What noise is called, for people.
NAMES: Mapping[Law, str] = {
    "laplace": "discrete Laplace",
    "rounded": "rounded Laplace",
    "gaussian": "discrete Gaussian",
}
LIMITS = (
    "It covers the figures of this answer; not what is known about the people from elsewhere, and not the "
    "choice "
    "of bounds, groups and filters, if these were chosen by looking at the data.",
    "How long the engine takes is not hidden: whoever can time a question on the machine may learn of its "
    "data.",
)


@dataclass(frozen=True, slots=True)
class Draw:
    """One array of noisy whole numbers: a measure, at one level of its totals or of its quantile tree.

    Args:
        measure: its number in `Planned.measures`.
        level: how many keys its groups have (rollups), or the level of the tree (bins).
        linf, l1, l2_squared: what one privacy unit can change, in whole numbers.
        scale: of Laplace noise; the variance, of Gaussian.
    """

    measure: int
    level: int
    linf: int
    l1: int
    l2_squared: int
    law: Law
    scale: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A question with everything that follows from it and the policy.

    Args:
        keys: with their public values; `private`: they are chosen privately instead, with `threshold` on
            units.
        groups, rows: the contribution bounds. draws: in the order in which noise is drawn.
        epsilon, delta: what the statement costs; rho: of Gaussian noise.
        unit: what one privacy unit is called.
        needed: the measures of each figure; bounds: of the values of figures, by name; whole: names of
            figures of whole numbers.
    """

    query: Query
    terms: Terms
    tables: Mapping[str, Table]
    keys: tuple[Key, ...]
    private: bool
    groups: int
    rows: int
    measures: tuple[Measure, ...]
    draws: tuple[Draw, ...]
    law: Law
    epsilon: Fraction
    delta: Fraction
    rho: Fraction
    unit: str
    plan: Plan
    needed: tuple[tuple[Measure, ...], ...]
    bounds: Mapping[str, Bounds]
    whole: tuple[str, ...]
    threshold: int = 0

    @property
    def cells(self) -> int:
        """How many groups the answer has, where they are public."""
        return _product(self.keys)

    def draws_of(self, measure: Measure) -> tuple[Draw, ...]:
        """Return the draws of a measure."""
        index = [key_of(one) for one in self.measures].index(key_of(measure))
        return tuple(draw for draw in self.draws if draw.measure == index)


def plan_query(
    query: Query, terms: Terms, tables: Mapping[str, Table], policy: Policy, purpose: str
) -> Planned:
    """Return the plan of a question; nothing is read and nothing is charged.

    Guarantee:
        The answer is (epsilon, delta)-differentially private for the population's privacy unit and relation.
        Sensitivities follow from the contribution bounds and the clamps alone.

    Args:
        tables: by alias, in the order of the query.

    Raises:
        InvalidRequest: what is asked cannot be bounded, or is no question of this kind.
        PolicyRefused, UnknownName: nobody could pay, or not so.
    """
    domain = Domain(tables)
    _check(query, tables, domain)
    keys, private = _keys(query, terms, domain)
    cells = 0 if private else _product(keys)
    groups, rows = _bounds(terms, next(iter(tables.values())), keys, cells)
    needed = _needed(query, domain)
    measures = distinct([(Measure("units"),), *needed] if private else needed)
    name, population = _population(terms, tables, policy)
    share, kind, share_delta = _share(terms, name, population)
    payer = payers(tables.values(), name, share)
    delta = default_delta(kind, share_delta, terms.delta)
    spread = _spread(measures, keys, query.rollup, groups, rows, population.relation, private)
    terms = replace(terms, purpose=purpose, population=name, share=share, groups=groups, rows=rows)
    if terms.epsilon is None:
        terms = replace(terms, epsilon=_epsilon_for(terms, measures, spread, kind, delta, private))
    price = _price(terms, spread, kind, delta, private)
    draws = tuple(replace(draw, law=price.law, scale=price.scale(draw)) for draw in spread)
    least = 0
    if private:
        counted = _units(draws, measures)
        least = threshold(price.law, counted.scale, groups, price.selection)
    plan = Plan(
        action="query",
        mechanism=f"{NAMES[price.law]} noise on bounded counts and sums",
        guarantee="proven",
        statement=_statement(price, population, groups, rows),
        limits=LIMITS,
        parameters=_parameters(query, terms, keys, price, least),
        purpose=purpose,
        event=price.event,
        share=share,
        delta=price.delta if kind == "sum" else 0,
        datasets=tuple(pair for table in tables.values() for pair in table.datasets),
        consent=evidence(tables.values()),
        **payer,
    )
    return Planned(
        query=query,
        terms=terms,
        tables=tables,
        keys=keys,
        private=private,
        groups=groups,
        rows=rows,
        measures=measures,
        draws=draws,
        law=price.law,
        epsilon=price.epsilon,
        delta=price.delta,
        rho=price.rho,
        unit=population.unit,
        plan=plan,
        needed=needed,
        bounds={one.name: found for one in query.aggregates if (found := _range(one, domain)) is not None},
        whole=tuple(one.name for one in query.aggregates if one.of is not None and domain.whole(one.of)),
        threshold=least,
    )


def _check(query: Query, tables: Mapping[str, Table], domain: Domain) -> None:
    if not query.aggregates:
        raise InvalidRequest("a question needs at least one figure: a count, a sum, a mean, ...")
    check_finish(query)
    unit_kinds = {table.kinds[table.unit] for table in tables.values()}
    if len(unit_kinds) > 1:
        raise InvalidRequest(
            f"these tables name their {next(iter(tables.values())).unit} by "
            f"{' and by '.join(sorted(unit_kinds))}: "
            "a join needs the same kind in both"
        )
    for expression in _expressions(query):
        domain.check(expression)
        for one in walk(expression):
            if isinstance(one, Column) and one.name == _table(tables, one).unit:
                raise InvalidRequest(
                    f"{one.name!r} says who a row is about, and a question is about everybody: it may stand "
                    "in "
                    f"COUNT(DISTINCT {one.name}) and in joins only"
                )


def _expressions(query: Query) -> list[Expr]:
    found = [query.where, *(key.of for key in query.keys)]
    for one in query.aggregates:
        found += [one.of if one.kind != "units" else None, one.where]
    return [one for one in found if one is not None]


def _table(tables: Mapping[str, Table], column: Column) -> Table:
    table = tables.get(column.table) or (next(iter(tables.values())) if not column.table else None)
    if table is None:
        raise UnknownName("table of the query", column.table, tables)
    if column.name not in table.kinds:
        raise UnknownName(f"column of {table.name}", column.name, table.kinds)
    return table


def _keys(query: Query, terms: Terms, domain: Domain) -> tuple[tuple[Key, ...], bool]:
    found = tuple(
        replace(key, values=key.values if key.values is not None else domain.values_of(key.of))
        for key in query.keys
    )
    unknown = [key.name for key in found if key.values is None]
    if not unknown and not (terms.private_keys and found):
        if _product(found) > MOST_CELLS:
            raise InvalidRequest(f"{_product(found)} groups are more than {MOST_CELLS}: group by less")
        return found, False
    if not terms.private_keys:
        raise InvalidRequest(
            f"nobody said which values {unknown[0]!r} can have, and which ones occur is about people. "
            "Declare "
            f"them (values = [...], or range = [first, last], under the dataset's columns in {FILE_NAME}), "
            "give "
            "them with the question, or let them be chosen privately: --private-keys, private_keys=True"
        )
    if query.rollup or any(one.kind == "quantile" for one in query.aggregates):
        raise InvalidRequest(
            "totals (ROLLUP) and quantiles need groups that are public: declare their values"
        )
    return tuple(replace(key, values=None) for key in found), True


def _bounds(terms: Terms, table: Table, keys: tuple[Key, ...], cells: int) -> tuple[int, int]:
    groups = 1 if not keys else (terms.groups or table.groups)
    rows = terms.rows or table.rows
    missing = [name for name, value in (("groups", groups), ("rows", rows)) if value is None]
    if missing:
        what = {
            "groups": f"in how many groups of one answer one {table.unit} may count",
            "rows": f"how many rows of one {table.unit} may count in a group",
        }
        raise InvalidRequest(
            f"say {what[missing[0]]}: max_{missing[0]} = 3, for example, under [datasets.{table.name}] in "
            f"{FILE_NAME}, or --{missing[0]} 3. More people's rows are left out below it, and more noise is "
            "needed "
            "above it; it must not be taken from the data"
        )
    assert groups is not None
    assert rows is not None
    if groups < 1 or rows < 1:
        raise InvalidRequest(f"groups and rows must be at least 1, got {groups} and {rows}")
    return (min(groups, cells) if cells else groups), rows


def _needed(query: Query, domain: Domain) -> tuple[tuple[Measure, ...], ...]:
    """Return the measures of each figure."""
    found = []
    for one in query.aggregates:
        if query.rollup and one.kind in ("units", "quantile"):
            raise InvalidRequest(
                f"{one.name!r} does not add up over groups, so ROLLUP cannot give its totals: ask for it "
                "alone"
            )
        if (bounds := _range(one, domain)) is None or one.of is None:
            found.append(needs(one))
        else:
            found.append(needs(one, bounds, domain.step_of(one.of), whole=domain.whole(one.of)))
    return tuple(found)


def _range(aggregate: Aggregate, domain: Domain) -> Bounds | None:
    """Return what the values of a figure are clamped into, where it has any."""
    if aggregate.kind in ("count", "units") or aggregate.of is None:
        return None
    return aggregate.bounds or domain.range_of(aggregate.of)


def _spread(
    measures: tuple[Measure, ...],
    keys: tuple[Key, ...],
    rollup: bool,
    groups: int,
    rows: int,
    relation: Relation,
    private: bool,
) -> tuple[Draw, ...]:
    """Return all draws, without noise yet: one per measure, and per level of totals or of a tree."""
    found = []
    cells = None if private else _product(keys)

    def add(index: int, level: int, **merged: int) -> None:
        one = sensitivity(measures[index], groups, rows, relation, cells=cells, **merged)
        found.append(Draw(index, level, one.linf, one.l1, one.l2_squared, "laplace", Fraction(0)))

    for index, measure in enumerate(measures):
        if measure.kind == "bins":
            assert isinstance(measure.of, Binned)
            for level, nodes in enumerate(levels(measure.of.count)):
                add(index, level, width=measure.of.count // nodes)
            continue
        for depth in range(len(keys), -1, -1) if rollup else (len(keys),):
            add(index, depth, merged=_product(keys[depth:]))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Price:
    """A statement's price, shared equally by its draws."""

    law: Law
    event: Event
    epsilon: Fraction
    delta: Fraction
    rho: Fraction
    selection: Fraction
    count: int

    def scale(self, draw: Draw) -> Fraction:
        """Return the scale of a draw's Laplace noise, or the variance of its Gaussian noise."""
        if self.law == "gaussian":
            return draw.l2_squared * self.count / (2 * self.rho)
        return draw.l1 * self.count / self.epsilon


def _price(terms: Terms, spread: tuple[Draw, ...], kind: ShareKind, delta: Fraction, private: bool) -> _Price:
    epsilon, count = terms.epsilon, len(spread)
    assert epsilon is not None
    if epsilon <= 0:
        raise InvalidRequest(f"epsilon must be above 0, got {text(epsilon)}")
    if private and (kind != "sum" or not delta):
        raise PolicyRefused(
            "choosing groups privately takes a delta of its own, and so a share of kind 'sum' that has "
            "one, and "
            "--delta, such as 1e-7: declare the groups' values, or such a share",
            rule="populations",
        )
    laplace = _Price(
        law="laplace" if private else "rounded",
        event=ApproxDP(epsilon, delta) if private else Laplace(1 / epsilon),
        epsilon=epsilon,
        delta=delta if private else Fraction(0),
        rho=Fraction(0),
        selection=delta if private else Fraction(0),
        count=count,
    )
    if terms.mechanism == "laplace" or (terms.mechanism == "auto" and not delta):
        return laplace
    part = delta / 2 if private else delta  # half for the noise, half for the choice of groups
    rho = rho_for(epsilon, part)
    gaussian = replace(
        laplace,
        law="gaussian",
        event=ApproxDP(epsilon, delta) if private else ZCDP(rho),
        delta=delta,
        rho=rho,
        selection=delta - part if private else Fraction(0),
    )
    if terms.mechanism == "gaussian" or _error(gaussian, spread) < _error(laplace, spread):
        return gaussian
    return laplace


def _error(price: _Price, spread: tuple[Draw, ...]) -> float:
    """Return the mean relative width of the noise, over draws."""
    widths = [laws.deviation(price.law, price.scale(draw)) / draw.linf for draw in spread]
    return sum(widths) / len(widths)


def _epsilon_for(
    terms: Terms,
    measures: tuple[Measure, ...],
    spread: tuple[Draw, ...],
    kind: ShareKind,
    delta: Fraction,
    private: bool,
) -> Fraction:
    """Return the least epsilon, to three digits, whose noise keeps every figure's interval within a target."""
    target = terms.target_error
    if target is None:
        raise InvalidRequest("say what the answer may cost: epsilon, such as 0.5, or a target error")
    if not target > 0:
        raise InvalidRequest(f"the target error must be above 0, got {target}")
    if any(measure.kind in ("squares", "bins") or measure.centred for measure in measures):
        raise InvalidRequest(
            "the error of a mean, variance or quantile depends on how many rows there are, which is not "
            "known "
            "beforehand: give epsilon, or ask for counts and sums with a target error"
        )

    def widest(epsilon: Fraction) -> float:
        price = _price(replace(terms, epsilon=epsilon), spread, kind, delta, private)
        return max(
            laws.interval(price.law, price.scale(draw)) * float(measures[draw.measure].step)
            for draw in spread
        )

    low, high = Fraction(1, 10**6), Fraction(1, 10**6)
    while widest(high) > target:
        low, high = high, high * 4
        if high > 1000:
            raise InvalidRequest(
                f"no epsilon below 1000 keeps the error within {target}: ask for a larger one"
            )
    while high / low > Fraction(1002, 1000):
        middle = Fraction((low + high) / 2).limit_denominator(10**9)
        low, high = (low, middle) if widest(middle) <= target else (middle, high)
    return Fraction(brief(high))


def _units(draws: tuple[Draw, ...], measures: tuple[Measure, ...]) -> Draw:
    return next(draw for draw in draws if measures[draw.measure] == Measure("units"))


def _population(terms: Terms, tables: Mapping[str, Table], policy: Policy) -> tuple[str, Population]:
    names = dict.fromkeys(name for table in tables.values() for name in table.populations)
    if terms.population and terms.population not in names:
        raise UnknownName("population of this data", terms.population, names)
    if not names:
        payers(tables.values(), "", "")
    name = terms.population or next(iter(names))
    if name not in policy.populations:
        raise UnknownName("population", name, policy.populations)
    relations = {policy.populations[one].relation for one in names if one in policy.populations}
    if len(relations) > 1:
        raise PolicyRefused(
            "the people of these tables have different neighbouring relations: ask one table at a time"
        )
    return name, policy.populations[name]


def _share(terms: Terms, name: str, population: Population) -> tuple[str, ShareKind, Fraction]:
    shares = population.opened_shares()
    if terms.share and terms.share not in shares:
        raise UnknownName(f"share of {name}", terms.share, shares)
    if not terms.share and len(shares) > 1:
        raise InvalidRequest(
            f"the population {name!r} has the shares {', '.join(shares)}: say which pays, by --share"
        )
    share = terms.share or next(iter(shares))
    return share, shares[share].kind, shares[share].delta


def _product(keys: tuple[Key, ...]) -> int:
    count = 1
    for key in keys:
        count *= len(key.values or ())
    return count


def _statement(price: _Price, population: Population, groups: int, rows: int) -> str:
    cost = f"({brief(price.epsilon)}, {brief(price.delta)})" if price.delta else f"{brief(price.epsilon)}"
    more = f", by {brief(price.rho)}-zCDP" if price.rho and not price.selection else ""
    changed = "added or removed" if population.relation == "add-or-remove-one" else "replaced by another"
    return (
        f"The answer is {cost}-differentially private{more} for one {population.unit}, {changed}, with all "
        f"its rows: it counts in at most {groups} groups with at most {rows} rows in each, values are "
        "clamped, "
        f"and {NAMES[price.law]} noise is added to whole numbers. It assumes that bounds, groups and filters "
        "are public."
    )


def _parameters(
    query: Query, terms: Terms, keys: tuple[Key, ...], price: _Price, least: int
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "question": render(query),
        "groups": terms.groups,
        "rows": terms.rows,
        "law": price.law,
        "epsilon": text(price.epsilon),
        "delta": text(price.delta),
        "rho": text(price.rho),
        "finish": [terms.non_negative, terms.integers, terms.consistent],
        "keys": [_values(key) for key in keys],
    }
    return found | ({"threshold": least} if least else {})


def _values(key: Key) -> Any:
    """Return the public values of a key as plain data; of many, a hash."""
    if key.values is None:
        return None
    spelled = [f"{type(value).__name__} {value!r}" for value in key.values]
    return spelled if len(spelled) <= 100 else {"values": len(spelled), "sha256": digest_of(spelled)}
