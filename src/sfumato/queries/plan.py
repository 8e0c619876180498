"""What will be asked, bounded and charged, before anything is read: the plan, its price and its noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from sfumato.core.accounting import Kind as ShareKind
from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.files import digest_of
from sfumato.core.gate import Plan
from sfumato.core.numbers import brief, text
from sfumato.core.policy import FILE_NAME, Policy, Population
from sfumato.mechanisms.exact import Kind as Law
from sfumato.mechanisms.exact import Law as Drawn
from sfumato.queries import vetting
from sfumato.queries.bounded import Measure
from sfumato.queries.domain import MOST_CELLS, Domain
from sfumato.queries.finish import check as check_finish
from sfumato.queries.measures import Bounds, Relation, distinct, needs, sensitivity
from sfumato.queries.measures import key as key_of
from sfumato.queries.model import Aggregate, Binned, Column, Expr, Key, Query, Terms, walk
from sfumato.queries.pricing import Draw, Price, default_delta, epsilon_for, price_of
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
    "choice of bounds, groups and filters, if these were chosen by looking at the data.",
    "How long the engine takes is not hidden: whoever can time a question on the machine may learn of its "
    "data.",
)


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
    terms, domain = vetting.exact(terms), Domain(tables)
    vetting.check(query, tables)
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
        terms = replace(terms, epsilon=epsilon_for(terms, measures, spread, kind, delta, private))
    price = price_of(terms, spread, kind, delta, private)
    draws = tuple(replace(draw, law=price.law, scale=price.scale(draw)) for draw in spread)
    for draw in draws:
        Drawn(draw.law, draw.scale)  # noise that is too wide to draw is refused before the charge
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
            "Declare them (values = [...], or range = [first, last], under the dataset's columns in "
            f"{FILE_NAME}), give them with the question, or let them be chosen privately: --private-keys, "
            "private_keys=True"
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


def _statement(price: Price, population: Population, groups: int, rows: int) -> str:
    cost = f"({brief(price.epsilon)}, {brief(price.delta)})" if price.delta else f"{brief(price.epsilon)}"
    more = f", by {brief(price.rho)}-zCDP" if price.rho and not price.selection else ""
    changed = "added or removed" if population.relation == "add-or-remove-one" else "replaced by another"
    return (
        f"The answer is {cost}-differentially private{more} for one {population.unit}, {changed}, with all "
        f"its rows: it counts in {_most(groups, 'group')} with {_most(rows, 'row')} in each, values are "
        "clamped, "
        f"and {NAMES[price.law]} noise is added to whole numbers. It assumes that bounds, groups and filters "
        "are public."
    )


def _most(count: int, what: str) -> str:
    return f"at most {count} {what}" + ("s" if count > 1 else "")


def _parameters(
    query: Query, terms: Terms, keys: tuple[Key, ...], price: Price, least: int
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
