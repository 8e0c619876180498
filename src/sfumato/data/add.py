"""Adding a version: look, minimise, store, write down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sfumato.core.dataset_policy import DatasetSection
from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import BatchFailed, InvalidRequest, MediaError, PolicyRefused
from sfumato.core.files import sha256_of
from sfumato.core.policy import Policy
from sfumato.data.catalogue import Catalogue
from sfumato.data.door import Minimised, Request, minimise, rules_of
from sfumato.data.lineage import populations_of
from sfumato.data.people import People
from sfumato.data.pictures import (
    PIXELS,
    RECORDS,
    Entering,
    Strip,
    entering,
    fingerprint,
    pixels_of,
    subjects_of,
)
from sfumato.data.readers import TableSource, choose
from sfumato.data.store import Place, Store
from sfumato.data.version import Facts, Item, Version

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = "rows"


@dataclass(frozen=True, slots=True)
class Look:
    """What adding a source would do; nothing was written.

    Args:
        reader, rules, minimised: who reads it, and what becomes of it.
        rows, pictures, subjects: how many would enter.
        tested: the disclosure checks of what would enter.
        left_out: files that are no part of it, each with the reason.
    """

    reader: str
    rules: DatasetSection
    minimised: Minimised
    rows: int
    pictures: int
    subjects: int
    tested: dict[str, Any]
    left_out: tuple[tuple[str, str], ...]
    content: pa.Table | list[Entering] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Added:
    """A version that was added; `new` is False where the newest one holds the same already."""

    version: Version
    look: Look
    new: bool
    failures: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        """Raise when some pictures could not enter.

        Raises:
            BatchFailed: lists them.
        """
        if self.failures:
            shown = "; ".join(f"{name}: {why}" for name, why in self.failures[:5])
            raise BatchFailed(
                f"{len(self.failures)} of {self.look.pictures} pictures could not enter {self.version.spec}: "
                f"{shown}",
                self.failures,
            )


def look(policy: Policy, request: Request) -> Look:
    """Say what adding a source would do: what enters, what is dropped and why. Writes nothing.

    Raises:
        InvalidRequest, UnknownName, PolicyRefused: it could not be added.
    """
    key = SYSTEM.bytes(32)
    return _look(policy, request, People(lambda: key))


def _look(policy: Policy, request: Request, people: People) -> Look:
    rules = rules_of(policy, request)
    reader, opened = choose(request.path, request.reader)
    source = opened.open(request.path)
    if isinstance(source, TableSource):
        from sfumato.data.tables import read_minimised, tested

        minimised = minimise(source.fields, rules, request.dataset, pictures=False)
        table = read_minimised(
            source, rules, minimised.kept, lambda value: people.subject(value, rules.population)
        )
        result = tested(table, rules)
        count = len(table[rules.unit].unique())
        checks = result.to_data() if result is not None else {}
        return Look(reader, rules, minimised, len(table), 0, count, checks, source.left_out, table)
    minimised = minimise(source.fields, rules, request.dataset, pictures=True)
    found = entering(source, rules, minimised.kept, people)
    return Look(reader, rules, minimised, 0, len(found), subjects_of(found), {}, source.left_out, found)


def add(
    catalogue: Catalogue, store: Store, policy: Policy, request: Request, *, strip: Strip | None = None
) -> Added:
    """Add a source as the next version of a dataset.

    Guarantee (heuristic):
        Only what the policy keeps reaches the store, as coarse as it asks, people as keyed pseudonyms and
        pictures as pixels. The version has the declared population and those of the versions before it.

    Args:
        strip: takes the metadata off a picture file; needed for pictures. The redaction room has one.

    Raises:
        InvalidRequest, UnknownName, PolicyRefused: nothing was added.
        BatchFailed: no picture could enter. Where only some could not, they are in the result's failures.
    """
    seen = _look(policy, request, catalogue.people)
    print_ = _fingerprint(catalogue, request, seen)
    older = catalogue.versions(request.dataset)[-1:] if request.dataset in catalogue.names() else ()
    inherited = {name for one in older for name in populations_of(catalogue, one)}
    populations = tuple(sorted(({seen.rules.population} | inherited) - {""}))
    _refuse_a_second_budget(catalogue, print_, populations)
    if seen.pictures and strip is None:
        raise InvalidRequest("pictures need `strip`, which takes their metadata off; give one")
    with catalogue.claim(request.dataset) as label:
        failures: list[tuple[str, str]] = []
        if isinstance(seen.content, list):
            assert strip is not None
            items, failures = _store_pictures(store, request.dataset, label, seen.content, strip)
        else:
            items = _store_table(store, request.dataset, label, seen.content, seen.rules)
        facts = _facts(seen, items, populations, print_)
        if older and (version := _same(older[0], items, facts)):
            return Added(version, seen, False, tuple(failures))
        version = catalogue.add(request.dataset, label, items, facts, older)
    return Added(version, seen, True, tuple(failures))


def _facts(seen: Look, items: Sequence[Item], populations: tuple[str, ...], print_: str) -> Facts:
    columns: tuple[tuple[str, str], ...] = ()
    subjects = len({item.subject for item in items})
    if not isinstance(seen.content, list):
        columns = tuple((field.name, str(field.type)) for field in seen.content.schema)
        subjects = seen.subjects
    return Facts(
        reader=seen.reader,
        unit=seen.rules.unit,
        population=seen.rules.population,
        populations=populations,
        purposes=tuple(sorted(seen.rules.purposes)),
        columns=columns,
        kept=seen.minimised.kept,
        dropped=seen.minimised.dropped,
        generalised=seen.minimised.generalised,
        rows=seen.rows,
        subjects=subjects,
        tested=seen.tested,
        fingerprint=print_,
    )


def _fingerprint(catalogue: Catalogue, request: Request, seen: Look) -> str:
    if isinstance(seen.content, list):
        return catalogue.people.fingerprint(fingerprint(seen.content))
    return catalogue.people.fingerprint(sha256_of(request.path))


def _refuse_a_second_budget(catalogue: Catalogue, print_: str, populations: tuple[str, ...]) -> None:
    """Refuse data that is here already as other people's: a copy of a file brings no fresh budget."""
    for version in catalogue.all():
        if version.facts.fingerprint == print_ and not set(version.facts.populations) <= set(populations):
            theirs = ", ".join(version.facts.populations)
            raise PolicyRefused(
                f"these bytes are in the catalogue as {version.spec}, of the population {theirs}; asked: "
                f"{', '.join(populations) or 'none'}. A copy stays theirs: use "
                f"--population {version.facts.populations[0]}."
            )


def _same(older: Version, items: Sequence[Item], facts: Facts) -> Version | None:
    """Return the newest version where it holds the same and says the same."""
    mine = {(item.path, item.name) for item in items}
    theirs = {(item.path, item.name) for item in older.items}
    known = replace(older.facts, populations=facts.populations)
    return older if mine == theirs and known == facts else None


def _store_table(
    store: Store, dataset: str, label: str, table: pa.Table, rules: DatasetSection
) -> list[Item]:
    from sfumato.data.tables import by_subject, to_bytes

    parts = by_subject(table, rules.unit) if rules.partition == "subject" else [("", table)]
    items = []
    for subject, rows in parts:
        path = f"{ROWS}/{subject}.parquet" if subject else f"{ROWS}.parquet"
        items.append(put(store, Place(dataset, label, path, subject), to_bytes(rows), rows=len(rows)))
    return items


def _store_pictures(
    store: Store, dataset: str, label: str, pictures: list[Entering], strip: Strip
) -> tuple[list[Item], list[tuple[str, str]]]:
    items, failures = [], []
    for one in pictures:
        try:
            data = pixels_of(one, strip)
        except MediaError as error:
            failures.append((one.picture.path, str(error)))
            continue
        items.append(put(store, Place(dataset, label, PIXELS + one.name, one.subject), data))
        if one.record:
            place = Place(dataset, label, f"{RECORDS}{one.name}.json", one.subject)
            items.append(put(store, place, one.record_bytes()))
    if not items:
        raise BatchFailed(f"no picture could enter; the first: {failures[0][0]}: {failures[0][1]}", failures)
    return items, failures


def put(store: Store, place: Place, data: bytes, *, rows: int = 0) -> Item:
    """Store bytes and return the item that names them."""
    return Item(place.path, store.put(data, place), len(data), place, rows)
