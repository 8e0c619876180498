"""From a dataset's name to a table that can be asked: where it lies, whose it is, and what is public of it.

Nothing of the rows is read here: everything below follows from the policy, the ledger and the table's schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sfumato.core import versions as rows
from sfumato.core.blocks import MARK
from sfumato.core.column_policy import ColumnSection, Kind
from sfumato.core.dataset_policy import DatasetSection
from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.gate import Gate
from sfumato.core.policy import FILE_NAME, Policy
from sfumato.queries.bounded import TableRef
from sfumato.queries.sources import (
    arrow_kind,
    files_of,
    fingerprint,
    is_database,
    kinds_of,
    place_of,
    recorded,
)

if TYPE_CHECKING:
    from sfumato.core.consent import Evidence
    from sfumato.core.project import Project
    from sfumato.data.use import Use
    from sfumato.data.wrapping import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that may be asked, for one purpose.

    Args:
        name: of the dataset; version: what is read, as the ledger knows it.
        unit: the column that says whose a row is.
        kinds: column -> kind, of those that may be asked about.
        columns: what is declared of them.
        groups, rows: in how many groups of an answer a unit counts, and how many of its rows in each.
        datasets: (name, hash) pairs for the plan; populations, touched: who pays.
        place: where it lies: a database's table, or files; for a version of the catalogue it is read when the
            question is run.
        use: of the version of the catalogue.
        now: tells the hash of what lies outside the catalogue, as it is now.
    """

    name: str
    version: str
    unit: str
    kinds: Mapping[str, Kind]
    columns: Mapping[str, ColumnSection]
    groups: int | None
    rows: int | None
    datasets: tuple[tuple[str, str], ...]
    populations: tuple[str, ...]
    touched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    consent: Evidence | None = None
    place: str | tuple[str, ...] = ""
    use: Use | None = None
    now: Callable[[], str] | None = None

    @property
    def unchanged(self) -> bool:
        """Whether the table still holds what the plan says."""
        return self.now is None or self.now() == self.datasets[0][1]

    def clamps(self) -> dict[str, tuple[Fraction, Fraction]]:
        """Return the declared bounds of numeric columns."""
        found = {name: section.clamps for name, section in self.columns.items()}
        return {name: pair for name, pair in found.items() if pair is not None}

    def ref(self, alias: str) -> TableRef:
        """Return what an engine reads; a version of the catalogue is read from its store for this."""
        place: Any = self.place
        if self.use is not None:
            from sfumato.data.contents import table

            place = table(self.use.store, self.use.version)
        return TableRef(alias, self.unit, place, dict(self.kinds), self.clamps())


def resolve(project: Project, spec: str, purpose: str, gate: Gate, access: Access | None = None) -> Table:
    """Return the table of a dataset that may be asked for a purpose.

    Args:
        spec: "NAME", or "NAME@LABEL" of the catalogue.
        access: what may open the vault, where there is one.

    Raises:
        UnknownName: no such dataset. PolicyRefused: it may not be used for this.
        InvalidRequest: it holds no table, or the policy's columns do not fit it.
    """
    policy, (name, _, label) = project.policy, spec.partition("@")
    section = policy.datasets.get(name)
    if section is not None and section.table:
        if label:
            raise InvalidRequest(
                f"{name!r} lies outside the catalogue and has no versions: ask {name!r} alone"
            )
        return _outside(project, section, name, gate)
    from sfumato.data.use import use

    try:
        used = use(project, spec, purpose, "query", access, gate=gate)
    except UnknownName as error:
        known = {one for one, each in policy.datasets.items() if each.table}
        raise UnknownName("dataset", name, {*error.allowed, *known}) if known else error from error
    facts = used.version.facts
    if not facts.columns:
        raise InvalidRequest(f"{spec} holds pictures, and a question needs a table")
    kinds = {column: kind for column, spelled in facts.columns if (kind := arrow_kind(spelled)) is not None}
    declared = section or DatasetSection()
    return Table(
        name=name,
        version=used.version.spec,
        unit=facts.unit,
        kinds=_kinds(name, kinds, declared, facts.unit),
        columns=declared.columns,
        groups=declared.max_groups,
        rows=declared.max_rows,
        datasets=used.datasets,
        populations=used.populations,
        touched=used.touched,
        consent=used.consent,
        use=used,
    )


def _outside(project: Project, section: DatasetSection, name: str, gate: Gate) -> Table:
    missing = [key for key in ("unit", "population") if not getattr(section, key)]
    if missing:
        raise PolicyRefused(
            f"datasets.{name}.table is asked where it lies, and {FILE_NAME} does not say its "
            f"{' and '.join(missing)}: whose a row is (a column), and whose budget pays",
            rule=f"datasets.{name}.{missing[0]}",
        )
    place = place_of(project.root, section, name)
    if not is_database(place):
        # Engines read a pattern in their own way: they get the very files that are hashed.
        files = tuple(str(path) for path in files_of(place, name))
    kinds = kinds_of(place, name)
    if section.unit not in kinds:
        raise InvalidRequest(
            f"the table of {name!r} has no column {section.unit!r}, its unit; it has: "
            f"{', '.join(sorted(kinds))}"
        )
    digest = fingerprint(project, section, name, place)
    label = recorded(gate, name, section.population, digest)
    allowed = {*section.keep, *section.columns, section.unit} if section.keep else set(kinds)
    return Table(
        name=name,
        version=f"{name}@{label}",
        unit=section.unit,
        kinds=_kinds(
            name, {one: kind for one, kind in kinds.items() if one in allowed}, section, section.unit
        ),
        columns=section.columns,
        groups=section.max_groups,
        rows=section.max_rows,
        datasets=((name, digest),),
        populations=(section.population,),
        touched=rows.touched(gate.ledger, (digest,), name) if gate.ledger is not None else {},
        place=place if is_database(place) else files,
        now=lambda: fingerprint(project, section, name, place),
    )


def _kinds(name: str, found: Mapping[str, Kind], section: DatasetSection, unit: str) -> dict[str, Kind]:
    kinds: dict[str, Kind] = dict(found)
    for column, declared in section.columns.items():
        if column not in kinds:
            raise InvalidRequest(
                f"datasets.{name}.columns names {column!r}, which the table does not have as a column that "
                f"can be asked about; it has: {', '.join(sorted(kinds))}"
            )
        if declared.kind:
            kinds[column] = declared.kind
    if unit not in kinds:
        raise InvalidRequest(
            f"the unit {unit!r} of {name!r} is no column of its table: add the data again with a column that "
            "says whose each row is"
        )
    return kinds


def payers(tables: Iterable[Table], population: str, share: str) -> dict[str, Any]:
    """Return whom a plan over these tables charges: every population of each, with all blocks touched.

    Raises:
        PolicyRefused: nobody's budget was declared for them.
        UnknownName: `population` is none of theirs.
    """
    tables = tuple(tables)
    touched: dict[str, set[str]] = {}
    for one in tables:
        for name in one.populations:
            touched.setdefault(name, set()).update(one.touched.get(name, ()))
    if not touched:
        raise PolicyRefused(
            f"nobody's budget is declared for {tables[0].name!r}: say whose data it is, by population = ... "
            f"under [datasets.{tables[0].name}] in {FILE_NAME}, before it is added",
            rule=f"datasets.{tables[0].name}.population",
        )
    first = population or next(iter(touched))
    if first not in touched:
        raise UnknownName("population of this data", first, touched)
    also: list[tuple[str, str]] = []
    for name, blocks in touched.items():
        if name != first:
            also += [(f"{name}{MARK}{block}", share) for block in sorted(blocks)] or [(name, share)]
    return {"population": first, "blocks": tuple(sorted(touched[first])), "also": tuple(also)}


def evidence(tables: Iterable[Table]) -> Evidence | None:
    """Return what the consent register answered: the oldest answer, where several tables were asked about.

    None where one of the tables was not asked about: nobody who does not agree has left it, and the gate
    refuses it for a purpose that rests on consent.
    """
    found = [one.consent for one in tables]
    asked = [one for one in found if one is not None]
    return min(asked, key=lambda one: one.seq) if len(asked) == len(found) else None


def purpose_for(policy: Policy, asked: str) -> str:
    """Return the purpose: the one that was asked for, or the only one that allows questions.

    Raises:
        PolicyRefused: several do, and none was named.
    """
    if asked or not policy.purposes:
        return asked or "not declared"
    fit = [name for name, one in policy.purposes.items() if "query" in one.actions]
    if len(fit) == 1:
        return fit[0]
    raise PolicyRefused(
        f"say what the answer is for, with --purpose: {', '.join(sorted(fit)) or 'no purpose allows it'}. "
        f'A purpose allows questions by actions = ["query"] in {FILE_NAME}.',
        rule="purposes",
    )
