"""Questions in Python: a step adds something, and every step is checked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Literal

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.queries import kinds
from sfumato.queries.kinds import TableShape, Typed
from sfumato.queries.model import Join, Key, Order, Query, Terms, Value
from sfumato.queries.pieces import default_name, free, key_name, values_of
from sfumato.queries.show import show
from sfumato.queries.sql.render import render
from sfumato.queries.sql.scope import Scope, Source, named, same, table
from sfumato.queries.written import Figure, Group, Number, Written, condition, exactly, figure, grouped

_EXACT = ("epsilon", "delta")


@dataclass(frozen=True, slots=True)
class Builder:
    """A question that grows: every method returns a new one and leaves this one as it is.

    Columns and conditions are SQL text, as in "speed > 50", or expressions of the model.

    >>> flow = TableShape("vehicle", {"junction": "text", "hour": "integer", "speed": "number"})
    >>> asked = Builder({"flow": flow}, lambda what, query, terms: terms.epsilon, "flow")
    >>> asked = asked.where("speed > 50").count().by("junction", "hour")
    >>> asked.to_sql()
    'SELECT junction, hour, COUNT(*) AS count FROM flow WHERE speed > 50 GROUP BY junction, hour'
    >>> asked.run(epsilon=0.1)
    Fraction(1, 10)

    Args:
        shapes: dataset -> its privacy unit and columns; table: the dataset asked about ("flow" or "flow@3").
        ask: called with one of "run", "plan" and "explain", the question, and its terms.
    """

    shapes: Mapping[str, TableShape]
    ask: Callable[[str, Query, Terms], Any]
    table: str
    _joins: tuple[Join, ...] = ()
    _where: tuple[Written, ...] = ()
    _groups: tuple[Group, ...] = ()
    _figures: tuple[Figure, ...] = ()
    _rollup: bool = False
    _having: tuple[tuple[str, str, float], ...] = ()
    _order: tuple[Order, ...] = ()
    _limit: int | None = None
    _terms: Terms = field(default_factory=Terms)

    def __post_init__(self) -> None:
        if self._figures:
            self._read()
        else:
            self._keys(self._scope())

    def where(self, *conditions: Written) -> Builder:
        """Let only rows count for which all conditions are true."""
        made = replace(self, _where=(*self._where, *conditions))
        scope = made._scope()
        for each in conditions:
            condition(scope, each)
        return made

    def by(
        self, *keys: Written, values: Mapping[str, Iterable[Value]] | None = None, **named_keys: Written
    ) -> Builder:
        """Ask for one figure per group.

        Args:
            keys: columns or expressions; `named_keys` gives them names: by(day="DATE_TRUNC('day', t)").
            values: of keys, by name: the groups there may be, where the policy does not say.
        """
        given = [Group(each) for each in keys] + [Group(each, name) for name, each in named_keys.items()]
        made = replace(self, _groups=(*self._groups, *given))
        if not values:
            return made
        names = [key.name for key in made._keys(made._scope())]
        for name in values:
            if name not in names:
                raise UnknownName("group", name, names)
        groups = [
            replace(group, values=tuple(values[name])) if name in values else group
            for group, name in zip(made._groups, names, strict=True)
        ]
        return replace(self, _groups=tuple(groups))

    def join(self, other: str, *, kind: Literal["inner", "left"] = "inner", alias: str = "") -> Builder:
        """Join another table of the same people, on the privacy unit."""
        if kind not in ("inner", "left"):
            raise UnknownName("kind of join", kind, ("inner", "left"))
        return replace(self, _joins=(*self._joins, Join(other, alias or other.partition("@")[0], kind)))

    def rollup(self) -> Builder:
        """Ask for the totals over the last keys, one by one, too."""
        return replace(self, _rollup=True)

    def count(self, of: Written | None = None, *, where: Written | None = None, name: str = "") -> Builder:
        """Ask for the number of rows, or of those where `of` is not null."""
        return self._figure(Figure("count", of, name, where))

    def units(self, *, where: Written | None = None, name: str = "") -> Builder:
        """Ask for the number of different people (privacy units)."""
        return self._figure(Figure("units", None, name, where))

    def sum(
        self,
        of: Written,
        *,
        bounds: tuple[Number, Number] | None = None,
        where: Written | None = None,
        name: str = "",
    ) -> Builder:
        """Ask for a sum; values are clamped into `bounds`, or into those that are declared."""
        return self._figure(Figure("sum", of, name, where, bounds))

    def mean(
        self,
        of: Written,
        *,
        bounds: tuple[Number, Number] | None = None,
        where: Written | None = None,
        name: str = "",
    ) -> Builder:
        """Ask for a mean."""
        return self._figure(Figure("mean", of, name, where, bounds))

    def variance(
        self,
        of: Written,
        *,
        bounds: tuple[Number, Number] | None = None,
        where: Written | None = None,
        name: str = "",
    ) -> Builder:
        """Ask for the variance of the population."""
        return self._figure(Figure("variance", of, name, where, bounds))

    def stddev(
        self,
        of: Written,
        *,
        bounds: tuple[Number, Number] | None = None,
        where: Written | None = None,
        name: str = "",
    ) -> Builder:
        """Ask for the standard deviation of the population."""
        return self._figure(Figure("stddev", of, name, where, bounds))

    def quantile(
        self,
        of: Written,
        q: Number,
        *,
        bounds: tuple[Number, Number] | None = None,
        where: Written | None = None,
        name: str = "",
    ) -> Builder:
        """Ask for a quantile; `q` from 0 to 1."""
        return self._figure(Figure("quantile", of, name, where, bounds, q))

    def median(
        self,
        of: Written,
        *,
        bounds: tuple[Number, Number] | None = None,
        where: Written | None = None,
        name: str = "",
    ) -> Builder:
        """Ask for a median."""
        return self._figure(Figure("quantile", of, name, where, bounds, Fraction(1, 2)))

    def histogram(
        self, of: Written, *, bins: int = 10, bounds: tuple[Number, Number] | None = None, name: str = ""
    ) -> Builder:
        """Ask for counts by bins of one width; `bounds` from the first to the last, or as declared."""
        made = replace(self, _groups=(*self._groups, Group(of, name, bins=(bins, bounds))))
        return made if made._figures else made.count()

    def having(self, name: str, op: str, number: Number) -> Builder:
        """Show only groups whose figure compares so with a number, after the noise."""
        if op not in ("<", "<=", ">", ">=", "=", "<>"):
            raise UnknownName("comparison", op, ("<", "<=", ">", ">=", "=", "<>"))
        limit = float(exactly(number, "the limit of having"))
        return replace(self, _having=(*self._having, (self._named(name, figures=True), op, limit)))

    def sort(self, by: str, *, descending: bool = False) -> Builder:
        """Sort the answer by a figure or a key."""
        return replace(self, _order=(*self._order, Order(self._named(by), descending)))

    def top(self, n: int, by: str = "") -> Builder:
        """Show only the `n` groups whose figure is largest, after the noise: the first, or that of `by`."""
        if not self._figures:
            raise InvalidRequest("top sorts by a figure, and none was asked for; add .count() first")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InvalidRequest(f"top {n!r} is no number of groups; give a whole number from 1")
        name = self._named(by, figures=True) if by else self._read().aggregates[0].name
        return replace(self, _order=(*self._order, Order(name, descending=True)), _limit=n)

    def bound(self, *, groups: int | None = None, rows: int | None = None) -> Builder:
        """Bound in how many groups one person counts, and with how many rows in each."""
        for name, value in (("groups", groups), ("rows", rows)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidRequest(f"{name}={value!r} is no bound; give a whole number from 1")
        terms = replace(self._terms, groups=groups or self._terms.groups, rows=rows or self._terms.rows)
        return replace(self, _terms=terms)

    @property
    def query(self) -> Query:
        """The question, as plain data."""
        if not self._figures:
            raise InvalidRequest("nothing is asked for; add a figure, as in .count() or .mean('speed')")
        if self._rollup and not self._groups:
            raise InvalidRequest("rollup gives totals over groups, and there are none; add .by('hour')")
        return self._read()

    def to_sql(self) -> str:
        """Return the question as SQL."""
        return render(self.query, self.shapes)

    def plan(self, epsilon: Number | None = None, **terms: Any) -> Any:
        """Return what would happen and what it would cost; nothing is spent."""
        return self.ask("plan", self.query, self._priced(epsilon, terms))

    def explain(self, epsilon: Number | None = None, **terms: Any) -> Any:
        """Return the plan as text; nothing is spent."""
        return self.ask("explain", self.query, self._priced(epsilon, terms))

    def run(self, epsilon: Number | None = None, **terms: Any) -> Any:
        """Return the answer, which is charged before its noise is drawn.

        Args:
            epsilon: for the whole question; or target_error=...
            terms: other fields of `Terms`, such as delta, mechanism and purpose.
        """
        return self.ask("run", self.query, self._priced(epsilon, terms))

    def _priced(self, epsilon: Number | None, terms: dict[str, Any]) -> Terms:
        known = [each.name for each in fields(Terms)]
        for name in terms:
            if name not in known:
                raise UnknownName("term", name, known)
        given = dict(terms) if epsilon is None else {**terms, "epsilon": epsilon}
        for name in _EXACT:
            if given.get(name) is not None:
                given[name] = exactly(given[name], name)
        return replace(self._terms, **given)

    def _figure(self, figure: Figure) -> Builder:
        return replace(self, _figures=(*self._figures, figure))

    def _named(self, name: str, *, figures: bool = False) -> str:
        query = self._read()
        names = [each.name for each in query.aggregates]
        names += [] if figures else [each.name for each in query.keys]
        own = same(name, names)
        if own is None:
            raise UnknownName("figure" if figures else "column of the answer", name, names)
        return own

    def _scope(self) -> Scope:
        sources: list[Source] = []
        for name, alias, kind in [
            (self.table, "", "first"),
            *((join.table, join.alias, join.kind) for join in self._joins),
        ]:
            own, shape = named(name, self.shapes)
            alias = alias or name.partition("@")[0]
            made = table(own, shape, alias if self._joins else "")
            sources.append(replace(made, name=alias, kind=kind))  # type: ignore[arg-type]
        names = [each.name.lower() for each in sources]
        if len(set(names)) < len(names):
            raise InvalidRequest(
                f"two tables are called {names[-1]}; name one, as in .join(..., alias='other')"
            )
        return Scope(tuple(sources))

    def _read(self) -> Query:
        scope = self._scope()
        where = [Typed(condition(scope, each), "boolean") for each in self._where]
        keys = self._keys(scope)
        taken = {key.name.lower() for key in keys}
        figures = []
        for each in self._figures:
            made = figure(scope, each)
            figures.append(replace(made, name=free(each.name, default_name(made), taken)))
        first = scope.sources[0]
        return Query(
            table=first.table,
            aggregates=tuple(figures),
            alias=first.name if self._joins else "",
            joins=tuple(
                replace(join, table=source.table)
                for join, source in zip(self._joins, scope.sources[1:], strict=True)
            ),
            where=kinds.call("and", *where).of if where else None,
            keys=tuple(keys),
            rollup=self._rollup,
            having=self._having,
            order=self._order,
            limit=self._limit,
        )

    def _keys(self, scope: Scope) -> list[Key]:
        keys: list[Key] = []
        taken: set[str] = set()
        for group in self._groups:
            of = grouped(scope, group)
            if of.of in [key.of for key in keys]:
                raise InvalidRequest(f"{show(of.of)} is grouped by twice; leave one out")
            values = None if group.values is None else values_of(of, group.values)
            keys.append(Key(free(group.name, key_name(of.of), taken), of.of, values))
        return keys
