"""Adding a version: look, minimise, store, write down."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sfumato.core.dataset_policy import DatasetSection
from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import BatchFailed, Erased, InvalidRequest, MediaError, PolicyRefused
from sfumato.core.files import sha256_of
from sfumato.core.policy import Policy
from sfumato.data.catalogue import Catalogue
from sfumato.data.door import Minimised, Request, minimise, remembered, rules_of
from sfumato.data.lineage import populations_of
from sfumato.data.people import People
from sfumato.data.pictures import (
    PIXELS,
    RECORDS,
    Entering,
    Strip,
    digests,
    entering,
    pixels_of,
    subjects_of,
)
from sfumato.data.readers import TableSource, choose
from sfumato.data.store import Place, Store
from sfumato.data.version import Facts, Item, Version

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = "rows"
#: Who "read" a version that was moved into a vault.
ENCRYPTED = "encrypted"


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


def _look(policy: Policy, request: Request, people: People, *, hide_paths: bool = False) -> Look:
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
    found = entering(source, rules, minimised.kept, people, hide_paths=hide_paths)
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
    seen = _look(policy, request, catalogue.people, hide_paths=store.by_person)
    print_, content = _digests(catalogue, request, seen)
    older = catalogue.versions(request.dataset)[-1:] if request.dataset in catalogue.names() else ()
    inherited = {name for one in older for name in populations_of(catalogue, one)}
    populations = tuple(sorted(({seen.rules.population} | inherited) - {""}))
    _refuse_a_second_budget(catalogue, print_, populations)
    if seen.pictures and strip is None:
        raise InvalidRequest("pictures need `strip`, which takes their metadata off; give one")
    cut = store.by_person or seen.rules.partition == "subject"
    _refuse_without_blocks(policy, request, seen, populations, cut)
    facts = _facts(seen, populations, (print_, content))
    if older and _same(older[0], facts, _paths(seen, cut)):
        return Added(older[0], seen, False)
    _refuse_erased(store, request.dataset, seen)
    with catalogue.claim(request.dataset) as label:
        failures: list[tuple[str, str]] = []
        if isinstance(seen.content, list):
            assert strip is not None
            items, failures = _store_pictures(store, request.dataset, label, seen.content, strip)
            facts = replace(facts, subjects=len({item.subject for item in items}))
        else:
            items = _store_table(store, request.dataset, label, seen, cut)
        if older and _same(older[0], facts, {item.path for item in items}):
            for name in {item.name for item in items} if store.by_person else ():
                store.remove(
                    name
                )  # nobody else can refer to it: an encrypting store never gives a name twice
            return Added(older[0], seen, False, tuple(failures))
        version = catalogue.add(request.dataset, label, items, facts, older)
    return Added(version, seen, True, tuple(failures))


def _facts(seen: Look, populations: tuple[str, ...], digests: tuple[str, str]) -> Facts:
    columns: tuple[tuple[str, str], ...] = ()
    if not isinstance(seen.content, list):
        columns = tuple((field.name, str(field.type)) for field in seen.content.schema)
    return Facts(
        reader=seen.reader,
        unit=seen.rules.unit,
        population=seen.rules.population,
        populations=populations,
        purposes=tuple(sorted(seen.rules.purposes)),
        columns=columns,
        kept=seen.minimised.kept,
        dropped=remembered(seen.minimised.dropped),
        generalised=seen.minimised.generalised,
        rows=seen.rows,
        subjects=seen.subjects,
        tested=seen.tested,
        fingerprint=digests[0],
        content=digests[1],
    )


def _digests(catalogue: Catalogue, request: Request, seen: Look) -> tuple[str, str]:
    """Return keyed hashes of the source and of what enters."""
    if isinstance(seen.content, list):
        source, content = digests(seen.content)
    else:
        source = content = sha256_of(request.path)  # the rest that decides on a table's rows is in the facts
    return catalogue.people.fingerprint(source), catalogue.people.content(content)


def _refuse_erased(store: Store, dataset: str, seen: Look) -> None:
    """Refuse people who were erased, before anything is stored; says neither who nor how many."""
    if isinstance(seen.content, list):
        people = {one.subject for one in seen.content}
    else:
        people = set(seen.content[seen.rules.unit].unique().to_pylist())
    if any(store.erased(Place(dataset, "", "", subject)) for subject in people):
        raise Erased(
            "somebody in this source was erased from the vault, and nothing is stored about them again: take "
            "them out of the source. Nothing was added."
        )


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


def _refuse_without_blocks(
    policy: Policy, request: Request, seen: Look, populations: tuple[str, ...], cut: bool
) -> None:
    """Refuse a table stored whole where blocks go by enrolment: nobody could say who is in which."""
    if isinstance(seen.content, list) or cut:
        return
    for name in populations:
        if name in policy.populations and policy.populations[name].blocks.startswith("enrolment"):
            raise PolicyRefused(
                f"the population {name!r} has blocks by enrolment, so that each person's rows must be stored "
                f'on their own: write partition = "subject" under [datasets.{request.dataset}].',
                rule=f"datasets.{request.dataset}.partition",
            )


def _same(older: Version, facts: Facts, paths: Collection[str]) -> bool:
    """Return whether the newest version holds the same and says the same, whatever its bytes are called."""
    known = replace(older.facts, populations=facts.populations)
    if known.reader == ENCRYPTED:  # it was moved into the vault as it was
        known = replace(known, reader=facts.reader, population=facts.population)
        paths = {item.path for item in older.items}
    return known == facts and {item.path for item in older.items} == set(paths)


def _paths(seen: Look, cut: bool) -> set[str]:
    """Return the paths that a version of it would have."""
    if isinstance(seen.content, list):
        records = {f"{RECORDS}{one.name}.json" for one in seen.content if one.record}
        return records | {PIXELS + one.name for one in seen.content}
    people = seen.content[seen.rules.unit].unique().to_pylist() if cut else [""]
    return {rows_path(subject) for subject in people}


def rows_path(subject: str) -> str:
    """Return where rows lie inside a version: one person's, or everybody's."""
    return f"{ROWS}/{subject}.parquet" if subject else f"{ROWS}.parquet"


def _store_table(store: Store, dataset: str, label: str, seen: Look, cut: bool) -> list[Item]:
    from sfumato.data.tables import by_subject, to_bytes

    assert not isinstance(seen.content, list)
    parts = by_subject(seen.content, seen.rules.unit) if cut else [("", seen.content)]
    return put_all(
        store,
        (
            (Place(dataset, label, rows_path(subject), subject), to_bytes(rows), len(rows))
            for subject, rows in parts
        ),
    )


def _store_pictures(
    store: Store, dataset: str, label: str, pictures: list[Entering], strip: Strip
) -> tuple[list[Item], list[tuple[str, str]]]:
    failures: list[tuple[str, str]] = []

    def pieces() -> Iterator[tuple[Place, bytes, int]]:
        for one in pictures:
            try:
                data, about = pixels_of(one, strip), one.record_bytes()
            except MediaError as error:
                failures.append((one.picture.path, str(error)))
                continue
            yield Place(dataset, label, PIXELS + one.name, one.subject), data, 0
            if one.record:
                place = Place(dataset, label, f"{RECORDS}{one.name}.json", one.subject)
                yield place, about, 0

    items = put_all(store, pieces())
    if not items:
        raise BatchFailed(f"no picture could enter; the first: {failures[0][0]}: {failures[0][1]}", failures)
    return items, failures


def put(store: Store, place: Place, data: bytes, *, rows: int = 0) -> Item:
    """Store bytes and return the item that names them."""
    return Item(place.path, store.put(data, place), len(data), place, rows)


def put_all(store: Store, pieces: Iterable[tuple[Place, bytes, int]]) -> list[Item]:
    """Store many things (place, bytes, rows) and return their items."""
    known: list[tuple[Place, int, int]] = []

    def feed() -> Iterator[tuple[bytes, Place]]:
        for place, data, rows in pieces:
            known.append((place, len(data), rows))
            yield data, place

    names = store.put_many(feed())
    return [Item(p.path, name, size, p, rows) for name, (p, size, rows) in zip(names, known, strict=True)]
