"""The front door: questions to a project's tables, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import BudgetSpent, InvalidRequest, UnknownName
from sfumato.core.gate import Gate
from sfumato.core.numbers import brief, rational
from sfumato.core.project import FOLDER
from sfumato.queries.engines import CATALOGUE as ENGINES
from sfumato.queries.engines import engine_for
from sfumato.queries.kinds import TableShape
from sfumato.queries.model import Query, Terms
from sfumato.queries.plan import Planned, plan_query
from sfumato.queries.run import question_digest, run_query
from sfumato.queries.sql import parse
from sfumato.queries.standing import Standing, standing
from sfumato.queries.store import Store
from sfumato.queries.tables import Table, purpose_for, resolve

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.wrapping import Access
    from sfumato.queries.answer import Answer
    from sfumato.queries.builder import Builder
    from sfumato.queries.explain import Explanation

#: Where answers are kept, in a project's private folder.
ANSWERS = "answers"


class Questions:
    """Questions to a project's tables, for one purpose.

    >>> questions = project.questions(purpose="traffic-planning")  # doctest: +SKIP
    >>> questions.run("SELECT junction, COUNT(*) FROM flow GROUP BY 1", epsilon=0.5)  # doctest: +SKIP

    Args:
        project: whose tables, policy and ledger.
        purpose: of the policy; empty: the only one that allows questions.
        access: what may open the vault, where there is one.
        engine: name of the engine; empty: by where the table lies.
        gate: default: that of whoever runs this process.

    Raises:
        PolicyRefused: no such purpose, or whoever asks may not.
        UnknownName: no such engine.
    """

    def __init__(
        self,
        project: Project,
        *,
        purpose: str = "",
        access: Access | None = None,
        engine: str = "",
        gate: Gate | None = None,
    ) -> None:
        if engine and engine not in ENGINES.names:
            raise UnknownName(ENGINES.kind, engine, ENGINES.names)
        self.project, self._access, self._engine = project, access, engine
        self.purpose = purpose_for(project.policy, purpose)
        self.gate = gate or project.gate()
        self.gate.actor.require("query")
        self._tables: dict[str, Table] = {}

    def table(self, spec: str) -> Table:
        """Return a table that may be asked; looked up once, and again when it was changed."""
        if spec not in self._tables or not self._tables[spec].unchanged:
            self._tables[spec] = resolve(self.project, spec, self.purpose, self.gate, self._access)
        return self._tables[spec]

    def names(self) -> tuple[str, ...]:
        """Return the datasets that may be asked: those of the policy with a table, and the catalogue's."""
        from sfumato.data.opening import open_catalogue

        outside = {name for name, one in self.project.policy.datasets.items() if one.table}
        return tuple(sorted({*outside, *open_catalogue(self.project, self._access).names()}))

    def shape(self, spec: str) -> TableShape:
        """Return what may be asked of a table."""
        table = self.table(spec)
        return TableShape(table.unit, table.kinds, table.clamps())

    def parse(self, sql: str) -> Query:
        """Return a question in SQL as a query; nothing is read.

        Raises:
            InvalidRequest: it is no question of this kind; says where, and the nearest that is.
        """
        return parse(sql, _Shapes(self))

    def query(self, spec: str) -> Builder:
        """Begin a question in Python: `questions.query("flow").count().by("junction").run(epsilon=0.5)`."""
        from sfumato.queries.builder import Builder

        return Builder(_Shapes(self), self._do, spec)

    def plan(self, question: str | Query, terms: Terms | None = None, **asked: Any) -> Planned:
        """Return what a question would cost and how exact its answer would be; nothing is read or charged.

        Args:
            question: SQL, or a query.
            terms: or its values as keywords, such as `epsilon=0.5`, `groups=3`, `target_error=20`.
        """
        query = self.parse(question) if isinstance(question, str) else question
        tables = {query.alias or query.table: self.table(query.table)}
        for join in query.joins:
            tables[join.alias] = self.table(join.table)
        return plan_query(query, terms_of(terms, asked), tables, self.project.policy, self.purpose)

    def run(self, question: str | Query | Planned, terms: Terms | None = None, **asked: Any) -> Answer:
        """Answer a question. It is charged before noise is drawn; one that was answered before costs nothing.

        Raises:
            PolicyRefused, BudgetSpent, IntegrityError: nothing was charged and nothing was read.
        """
        planned = (
            self._again(question) if isinstance(question, Planned) else self.plan(question, terms, **asked)
        )
        engine = self._engine or None
        try:
            return run_query(planned, self.gate, self._store, lambda tables: engine_for(tables, engine))
        except BudgetSpent as refusal:
            most = self._largest(planned)
            if most:
                raise BudgetSpent(
                    f"{refusal} For this question: epsilon {brief(most, up=False)}."
                ) from refusal
            raise

    def _largest(self, planned: Planned) -> Fraction:
        """Return the largest epsilon, to one part in a thousand, at which a question would fit now."""
        assert self.gate.ledger is not None
        low, high = Fraction(0), planned.epsilon
        while high - low > high / 1000:
            middle = (low + high) / 2
            try:
                other = self.plan(planned.query, replace(planned.terms, epsilon=middle, target_error=None))
                fits = standing(self.gate.ledger, [other.plan]).fits
            except InvalidRequest:  # so small that its noise has no price
                return low
            low, high = (middle, high) if fits else (low, middle)
            if high < Fraction(1, 10**6):
                break
        return low

    def _again(self, planned: Planned) -> Planned:
        """Return a plan made anew: what is charged and bounded follows from the policy and data of now."""
        fresh = self.plan(planned.query, planned.terms)
        if question_digest(fresh) != question_digest(planned):
            raise InvalidRequest(
                "the policy or the data were changed since this was planned, or it was planned for something "
                "else: plan it again"
            )
        return fresh

    def answered(self, planned: Planned) -> bool:
        """Whether the same question to the same data was answered before: again, it costs nothing."""
        return self._store.read(question_digest(planned)) is not None

    def price(self, planned: Sequence[Planned]) -> Standing:
        """Return where the budget would stand after several questions, and whether all of them fit.

        Nothing is charged. What was answered before, and what stands there twice, costs nothing.
        """
        if not planned or self.gate.ledger is None:
            raise InvalidRequest("there is no question to price")
        owed = {question_digest(one): one.plan for one in planned if not self.answered(one)}
        return standing(self.gate.ledger, list(owed.values()), planned[0].plan)

    def explain(
        self, question: str | Query | Planned, terms: Terms | None = None, **asked: Any
    ) -> Explanation:
        """Return what a question would do, step by step, what it would cost and how exact it would be.

        Nothing is charged, and no row is read.
        """
        from sfumato.queries.explain import Explanation

        planned = question if isinstance(question, Planned) else self.plan(question, terms, **asked)

        def again(epsilon: Fraction) -> Planned:
            return self.plan(planned.query, replace(planned.terms, epsilon=epsilon, target_error=None))

        before = self.answered(planned)
        return Explanation.of(planned, self.price([planned]), again, answered=before)

    @property
    def _store(self) -> Store:
        return Store(self.project.root / FOLDER / ANSWERS)

    def _do(self, what: str, query: Query, terms: Terms) -> Any:
        planned = self.plan(query, terms)
        if what == "explain":
            return self.explain(planned)
        return self.run(planned) if what == "run" else planned


class _Shapes(Mapping[str, TableShape]):
    """The tables that may be asked, each looked up when it is needed."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    def __getitem__(self, spec: str) -> TableShape:
        try:
            return self._questions.shape(spec)
        except UnknownName as error:
            raise KeyError(spec) from error

    def __contains__(self, spec: object) -> bool:
        try:
            return isinstance(spec, str) and self[spec] is not None
        except KeyError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._questions.names())

    def __len__(self) -> int:
        return len(self._questions.names())


_AMOUNTS = ("epsilon", "delta")


def terms_of(terms: Terms | None, asked: dict[str, Any]) -> Terms:
    """Return terms with further values, amounts as exact numbers.

    >>> terms_of(None, {"epsilon": 0.1}).epsilon
    Fraction(1, 10)
    """
    unknown = set(asked) - set(Terms.__slots__)
    if unknown:
        raise InvalidRequest(
            f"unknown terms {', '.join(sorted(unknown))}; known: {', '.join(Terms.__slots__)}"
        )
    exact: dict[str, Any] = {
        name: rational(value, name=name) if name in _AMOUNTS and value is not None else value
        for name, value in asked.items()
    }
    return replace(terms or Terms(), **exact)
