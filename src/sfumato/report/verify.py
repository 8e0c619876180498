"""Checking a report: every claim is computed again, the page drawn again, and both compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sfumato.core.errors import IntegrityError, LedgerTampered
from sfumato.core.ledger import Ledger
from sfumato.core.project import Project
from sfumato.core.verify import verify as verify_ledger
from sfumato.data.store import Store
from sfumato.report.claims import FORMAT, claims, difference
from sfumato.report.collect import MADE_WITH, collect
from sfumato.report.page import CLOSE, OPEN, render
from sfumato.report.sources import Extent, Sources
from sfumato.report.subject import UNREAD, Subject

LARGEST = 256 << 20
#: Seconds by which a report may seem to be younger than the row after its last one.
LEEWAY = 60


@dataclass(frozen=True, slots=True)
class Checked:
    """A report that holds.

    Args:
        claims: how many values were computed again.
        rows: of the ledger, how many it was made from.
        unchecked: versions whose tables could not be read again.
    """

    claims: int
    rows: int
    unchecked: tuple[str, ...] = ()


def check(project: Project, path: Path, *, store: Store | None = None) -> Checked:
    """Check a report against the project that it is about.

    Args:
        store: for the answer to a person: where to look into tables of many people.

    Raises:
        IntegrityError: names the claim that differs and what it follows from, or the row that was changed.
    """
    page, data = read(path)
    extent = Extent.from_data(data.get("extent"))
    _compare_rows(project, data, extent)
    _check_maker(path, data)
    ledger = project.book()
    try:
        verify_ledger(ledger)
        sources = Sources(project, ledger, extent)
        _check_time(sources)
        subject = _subject(data, store)
        again = collect(sources, subject=subject)
    finally:
        ledger.close()
    if found := difference(data, again):
        raise IntegrityError(f"{path} does not hold: {found}")
    if page != (right := render(again)):
        raise IntegrityError(f"{path} does not hold: {_where(page, right)}")
    unread = _unchecked(again, store) if subject is not None else ()
    return Checked(sum(1 for _ in claims(again)), extent.rows, unread)


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a page and its claims.

    Raises:
        IntegrityError: it is no report.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MiB")
        page = path.read_bytes().decode("utf-8")
        start = page.index(OPEN) + len(OPEN)
        data = json.loads(page[start : page.index(CLOSE, start)])
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r:.40}; this version reads {FORMAT}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{path} does not read as a report of Sfumato: {error}") from error
    return page, data


def _compare_rows(project: Project, data: Mapping[str, Any], extent: Extent) -> None:
    """Compare the rows that the report names with the book, before anything else: the first one is named."""
    named = {row["row"]: row for row in _mappings(data.get("rows")) if isinstance(row.get("row"), int)}
    ledger, last = Ledger(project.where), 0
    try:
        if ledger.id != extent.ledger:
            raise IntegrityError(
                f"this is a report of ledger {extent.ledger[:32]}, and this project has ledger {ledger.id}"
            )
        for entry in ledger.entries():
            last = entry.seq
            if entry.seq in named and named[entry.seq].get("hash") != entry.hash:
                raise IntegrityError(
                    f"row {entry.seq} of the ledger ({entry.kind}) is not the one that the report names: it "
                    f"was changed in the ledger or in the report. On it rest: {_resting(data, entry.seq)}"
                )
    except LedgerTampered as error:
        raise LedgerTampered(f"{error} On it rest, in the report: {_resting(data, last + 1)}") from error
    finally:
        ledger.close()
    if last < extent.rows:
        raise IntegrityError(
            f"the report was made from {extent.rows} rows, and the ledger ends at row {last}: rows were cut "
            "off, or an older copy was put back"
        )


def _resting(data: Mapping[str, Any], row: int) -> str:
    paths = []
    for claim in claims(data):
        rows = claim.source.get("rows", ())
        within = "of" in claim.source and len(rows) == 2 and rows[0] <= row <= rows[1]
        if (row in rows or within) and not claim.path.startswith("rows."):
            paths.append(claim.path)
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "") or "nothing"


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, Mapping))


def _check_maker(path: Path, data: Mapping[str, Any]) -> None:
    """Refuse a report of another version of Sfumato, which may word and draw the same facts otherwise."""
    about = data.get("project")
    made_with = str(about.get("made_with", "") if isinstance(about, Mapping) else "")
    if made_with != MADE_WITH:
        raise IntegrityError(
            f"{path} says that it was made with {made_with[:40]!r}, and this is {MADE_WITH}, which may draw "
            "a page otherwise: verify it with the version that made it"
        )


def _check_time(sources: Sources) -> None:
    """Refuse a report that says it was made at a time when its newest row was not the newest."""
    at, rows = sources.extent.at, sources.entries
    after = sources.ledger.book.get(sources.extent.rows + 1)
    before = str(rows[-1].body.get("at", ""))
    # Another process may have written the next row while this one read the clock, on a machine of its own.
    early = (datetime.fromisoformat(at) - timedelta(seconds=LEEWAY)).isoformat(timespec="microseconds")
    if at < before or (after is not None and early > str(after.body.get("at", ""))):
        raise IntegrityError(
            f"extent.at says that the report was made {at[:40]}, and row {rows[-1].seq}, the newest it was "
            f"made from, is of {before}"
            + (f", the next of {after.body.get('at')}" if after is not None else "")
        )


def _subject(data: Mapping[str, Any], store: Store | None) -> Subject | None:
    if data.get("kind") != "subject":
        return None
    try:
        facts = data["subject"]
        looked = {one["version"]: one["state"] for one in facts["versions"]}
        return Subject(tuple(facts["pseudonyms"]), facts["population"], store, looked)
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"the report does not say whom it is about ({error!r})") from error


def _unchecked(data: Mapping[str, Any], store: Store | None) -> tuple[str, ...]:
    """Return the versions whose tables were taken on trust."""
    versions = data["subject"]["versions"]
    return tuple(one["version"] for one in versions if store is None or one["state"] == UNREAD)


def _where(page: str, right: str) -> str:
    """Say where a page differs from the one that its claims give."""
    at = next(
        (index for index, (a, b) in enumerate(zip(page, right, strict=False)) if a != b),
        min(len(page), len(right)),
    )
    before = right.rfind('data-claim="', 0, at)
    claim = right[before + 12 : right.index('"', before + 12)] if before >= 0 else "the head of the page"
    return (
        f"what the page shows is not what its claims say, at or after {claim}: it reads "
        f"{page[max(0, at - 20) : at + 40]!r}, and should read {right[max(0, at - 20) : at + 40]!r}"
    )
