"""Entries of the consent register from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from sfumato.core.errors import InvalidRequest

GIVEN, WITHDRAWN = "given", "withdrawn"

#: kind, subject, purpose, day, source
Item = tuple[str, str, str, date | None, str]


def read_csv(path: Path, source: str, known: set[str] | None) -> Iterator[Item]:
    """Iterate over the entries of a file with the columns subject, purpose, given, withdrawn.

    Raises:
        InvalidRequest: names the line; what stands there is not shown, because it may be about a person.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            _check_header(list(table.fieldnames or ()), path)
            for row in table:
                yield from _items(row, f"line {table.line_num} of {path}", source, known)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{path} does not read as a CSV file: {error}") from error


def fault(subject: str) -> str:
    """Return why a subject is not taken, or nothing.

    Under a name that only looks like a person's a withdrawal would be recorded and change nothing.
    """
    if not subject.strip():
        return "is empty"
    if subject != subject.strip():
        return "begins or ends with a space"
    if not subject.isprintable():
        return "holds a character that cannot be printed"
    return ""


def _check_header(names: list[str], path: Path) -> None:
    columns = {"subject", "purpose", GIVEN, WITHDRAWN}
    if missing := columns - set(names):
        raise InvalidRequest(
            f"{path} lacks the columns {', '.join(sorted(missing))}: its first line must name them, in small "
            "letters and separated by commas"
        )
    if twice := sorted(name for name in columns if names.count(name) > 1):
        raise InvalidRequest(f"{path} names a column twice: {', '.join(twice)}. Keep one of them")


def _items(row: dict[str, str | None], where: str, source: str, known: set[str] | None) -> Iterator[Item]:
    if None in row or None in row.values():  # a cut line may have lost a withdrawal, a comma shifts cells
        raise InvalidRequest(
            f"{where} has other cells than the header: quote a cell that holds a comma, and end a line "
            "with a comma where the last cell is empty"
        )
    subject, purpose = row["subject"] or "", row["purpose"] or ""
    if not subject.strip():
        raise InvalidRequest(f"{where} names no subject")
    if wrong := fault(subject):
        raise InvalidRequest(f"{where} names a subject that {wrong} (not shown): correct it there")
    if not purpose or (known is not None and purpose not in known):
        raise InvalidRequest(
            f"{where} names no declared purpose (what stands there is not shown, it may be a person's name); "
            f"declared: {', '.join(sorted(known or ())) or 'none'}"
        )
    if not row[GIVEN] and not row[WITHDRAWN]:
        raise InvalidRequest(f"{where} has no date under given or withdrawn")
    for kind in (GIVEN, WITHDRAWN):  # in this order: of one day's two entries the withdrawal counts
        if text := row[kind]:
            try:
                day = date.fromisoformat(text.strip())
            except ValueError:
                raise InvalidRequest(
                    f"{where}: what stands under {kind} (not shown, it may be a person's name) is not a day "
                    "such as 2030-12-31"
                ) from None
            yield kind, subject, purpose, day, source
