"""Tables outside the catalogue: a file or a database that is asked questions where it lies."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.core.column_policy import Kind
from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.files import digest_of, sha256_of, write_whole
from sfumato.core.gate import Gate
from sfumato.core.identity import ACTORS_KEY, Pseudonyms
from sfumato.core.plugins import need
from sfumato.core.project import FOLDER
from sfumato.core.versions import OUTSIDE, versions

if TYPE_CHECKING:
    from sfumato.core.dataset_policy import DatasetSection
    from sfumato.core.project import Project

POSTGRES = ("postgresql://", "postgres://")
SUFFIXES = (".parquet", ".pq", ".csv")


def is_database(place: str) -> bool:
    """Whether a place is a table of a database."""
    return place.startswith(POSTGRES)


def place_of(root: Path, section: DatasetSection, name: str) -> str:
    """Return where a declared table lies: a URL as it is, files by their full path.

    Raises:
        InvalidRequest: it is neither, or a database's table without a release.
    """
    if is_database(section.table):
        if "#" not in section.table:
            raise InvalidRequest(
                f"datasets.{name}.table names a database and no table: write "
                '"postgresql://host/database#schema.table"'
            )
        if not section.release:
            raise InvalidRequest(
                f"datasets.{name}.table lies in a database, where nobody can tell whether it changed: say "
                f'that it stays as it is, by release = "2026-11" under [datasets.{name}], and another name '
                "whenever it changes"
            )
        return section.table
    if "://" in section.table:
        raise InvalidRequest(
            f"datasets.{name}.table must be a file (.parquet or .csv) or begin with postgresql://, got "
            f"{section.table!r}"
        )
    path = Path(section.table)
    return str(path if path.is_absolute() else root / path)


def files_of(place: str, name: str) -> list[Path]:
    """Return the files of a place, sorted.

    Raises:
        InvalidRequest: there is none, or one that is neither Parquet nor CSV.
    """
    direct = Path(place)
    found = [direct] if direct.is_file() else [Path(one) for one in glob(place, recursive=True)]  # noqa: PTH207
    found = sorted(path for path in found if path.is_file())
    if not found:
        raise InvalidRequest(f"the table of {name!r} is not there: {place}")
    kinds = {path.suffix.lower() for path in found}
    if len(kinds) > 1 or not kinds <= set(SUFFIXES):
        raise InvalidRequest(
            f"the table of {name!r} must be Parquet or CSV files of one kind (names that end with "
            f"{', '.join(SUFFIXES)}); found: {', '.join(sorted(kinds)) or 'nothing'}"
        )
    return found


def kinds_of(place: str, name: str) -> dict[str, Kind]:
    """Return column -> kind, as the table itself says; columns of other kinds are left out."""
    if is_database(place):
        return _database_kinds(place, name)
    first = files_of(place, name)[0]
    if first.suffix.lower() == ".csv":
        with first.open(newline="", encoding="utf-8-sig") as file:
            try:
                header = next(csv.reader(file), [])
            except (csv.Error, UnicodeDecodeError) as error:
                raise InvalidRequest(f"the table of {name!r} is no CSV file in UTF-8: {error}") from error
        return dict.fromkeys(header, "text")
    need("a table in a Parquet file", ("pyarrow",), "queries")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(first)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"the table of {name!r} is not Parquet: {first} ({error})") from error
    found = {field.name: arrow_kind(str(field.type)) for field in schema}
    return {column: kind for column, kind in found.items() if kind is not None}


def arrow_kind(spelled: str) -> Kind | None:
    """Return the kind of an Arrow type by its name; None for those that no question can be asked of.

    >>> arrow_kind("int32"), arrow_kind("timestamp[us, tz=UTC]"), arrow_kind("list<item: int64>")
    ('integer', 'timestamp', None)
    """
    if spelled.startswith("dictionary<values="):
        return arrow_kind(spelled.removeprefix("dictionary<values=").partition(",")[0])
    if spelled == "bool":
        return "boolean"
    if spelled.startswith(("int", "uint")):
        return "integer"
    if spelled.startswith(("float", "double", "half", "decimal")):
        return "number"
    if spelled in ("string", "large_string", "string_view"):
        return "text"
    if spelled.startswith("date"):
        return "date"
    return "timestamp" if spelled.startswith("timestamp") else None


_DATABASE_KINDS: Mapping[str, Kind] = {
    "boolean": "boolean",
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "real": "number",
    "double precision": "number",
    "numeric": "number",
    "text": "text",
    "character varying": "text",
    "character": "text",
    "date": "date",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamp",
}


def _database_kinds(place: str, name: str) -> dict[str, Kind]:
    need("a table in PostgreSQL", ("psycopg",), "postgres")
    import psycopg

    url, _, table = place.partition("#")
    schema, _, bare = table.rpartition(".")
    question = (
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
    )
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            rows = connection.execute(question, (schema or "public", bare)).fetchall()
    except psycopg.Error as error:
        raise InvalidRequest(
            f"the database of {name!r} does not answer ({type(error).__name__}): check its address, and the "
            "password in ~/.pgpass or PGPASSWORD"
        ) from error
    if not rows:
        raise InvalidRequest(f"the database of {name!r} has no table {table!r} that this user may read")
    return {column: _DATABASE_KINDS[kind] for column, kind in rows if kind in _DATABASE_KINDS}


def fingerprint(project: Project, section: DatasetSection, name: str, place: str) -> str:
    """Return a keyed hash of what a table holds: of its files' bytes, or of a database's declared release.

    It is keyed, because it goes into the ledger: nobody without the project's folder can test guesses.
    """
    if is_database(place):
        url, _, table = place.partition("#")
        said: Any = {"database": url.rpartition("@")[2], "table": table, "release": section.release}
    else:
        said = {"files": [_cached(project, path) for path in files_of(place, name)]}
    mac = Pseudonyms.of(project.root / FOLDER, ACTORS_KEY)("table", digest_of([name, said]))
    return hashlib.sha256(mac.encode()).hexdigest()


def _cached(project: Project, path: Path) -> str:
    """Return a file's hash; that of before where its size, number and time of change are the same."""
    found = path.stat()
    state = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    memory = project.root / FOLDER / "tables" / f"{digest_of(str(path.resolve()))[:32]}.json"
    try:
        known = json.loads(memory.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = sha256_of(path)
    write_whole(memory, json.dumps({"state": state, "sha256": digest}), mode=None)
    return digest


def recorded(gate: Gate, name: str, population: str, digest: str) -> str:
    """Return the label under which the ledger knows what a table holds; a curator's question records it.

    Raises:
        PolicyRefused: it is not in the ledger, and who asks may not record it.
    """
    assert gate.ledger is not None
    before = [row.body for row in versions(gate.ledger) if row.body["dataset"] == name]
    for body in before:
        if body["hash"] == digest:
            return str(body["label"])
    if not gate.actor.may("curate"):
        raise PolicyRefused(
            f"the table of {name!r} is not in the ledger as it is now: it is new, or it was changed. A "
            f"curator records it: sfumato query --explain 'SELECT COUNT(*) FROM {name}'",
            rule=f"datasets.{name}",
        )
    label = str(1 + max((int(body["label"]) for body in before if str(body["label"]).isdigit()), default=0))
    gate.record_version(
        dataset=name, label=label, hash=digest, how=OUTSIDE, parents=(), populations={population: ()}
    )
    return label
