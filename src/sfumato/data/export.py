"""Letting a version out: through the gate, whole, with a receipt."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.core.files import sha256_of, sync_folder, write_whole
from sfumato.core.gate import Gate, Plan
from sfumato.core.receipt import Output, Receipt
from sfumato.data.contents import gone, holds_rows, is_rows, table
from sfumato.data.croissant import Counts, Exported, describe
from sfumato.data.store import Store
from sfumato.data.use import Use
from sfumato.data.version import Version

Form = Literal["parquet", "csv"]
Only = Literal["", "rows", "croissant"]
DESCRIPTION, RECEIPT = "croissant.json", "receipt.json"

STATEMENT = (
    "What the policy keeps of the data, minimised at the door, people as pseudonyms. It is personal data."
)
LIMITS = (
    "Whoever holds other data about these people may recognise them.",
    "Pixels are whole: nothing in a picture was hidden.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to export.

    Args:
        only: "rows" leaves the description out, "croissant" leaves the data out.
        form: of tables.
        terms: properties for the description, such as license.
    """

    only: Only = ""
    form: Form = "parquet"
    terms: Mapping[str, str] = field(default_factory=dict)


def plan_of(used: Use, wish: Wish) -> Plan:
    """Return the plan that the gate will check."""
    version = used.version
    return used.plan(
        mechanism="dataset export",
        guarantee="heuristic",
        statement=STATEMENT,
        limits=LIMITS,
        parameters={
            "dataset": version.dataset,
            "version": version.hash,
            "populations": list(used.populations),
            "what": wish.only or "rows and croissant",
        },
    )


def export(gate: Gate, used: Use, target: Path, wish: Wish) -> Receipt:
    """Write a version, its Croissant description and a receipt into a new folder.

    Guarantee (heuristic):
        The folder appears whole or not at all, and only after the gate has recorded the release. Nothing is
        hidden or noised beyond what was minimised at the door.

    Args:
        used: a version that may be used for the action "export"; see `sfumato.data.use.use`.
        target: a folder that does not exist.

    Raises:
        InvalidRequest: the folder exists, or `used` is for another action.
        PolicyRefused: the purpose, or the action, is not allowed, or consent was withdrawn since.
        IntegrityError: something is missing from the store, or was changed.
    """
    if target.exists():
        raise InvalidRequest(f"{target} exists: name a new folder")
    if used.action != "export":
        raise InvalidRequest(f"this use is for the action {used.action!r}: ask for 'export'")
    version, store, plan = used.version, used.store, plan_of(used, wish)
    gate.check(plan)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".sfumato-", dir=target.parent))
    try:
        with gate.open(plan) as permit:
            files = list(_write(store, version, aside, wish.form))
            counts = _counts(store, version)
            if wish.only != "rows":
                description = describe(version, files, wish.terms, counts)
                text = json.dumps(description, indent=2, allow_nan=False)
                write_whole(aside / DESCRIPTION, text + "\n")
            if wish.only == "croissant":
                for path in aside.iterdir():
                    if path.name != DESCRIPTION:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
            outputs = [Output.of(path) for path in sorted(aside.rglob("*")) if path.is_file()]
            permit.releasing()
            facts = {
                "files": len(outputs),
                "rows": counts.rows if wish.only != "croissant" else 0,
                "erased_pieces": gone(store, version),
            }
            receipt = permit.settle(outputs, facts=facts | used.facts())
        receipt.write(aside / RECEIPT)
        aside.chmod(0o755)
        aside.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return receipt


def _write(store: Store, version: Version, folder: Path, form: Form) -> Iterator[Exported]:
    """Write tables and items, and yield what they became."""
    if holds_rows(version):
        path = folder / f"rows.{form}"
        if form == "parquet":
            from sfumato.data.tables import to_bytes

            write_whole(path, to_bytes(table(store, version)))
        else:
            from pyarrow import csv

            csv.write_csv(table(store, version), path)
        yield _exported(path, folder)
    for item in version.items:
        if is_rows(item) or store.erased(item.home):
            continue
        path = folder / item.path
        if not path.resolve().is_relative_to(folder.resolve()):
            raise IntegrityError(f"{version.spec} holds an item whose path leads out of it: {item.path!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, store.get(item.name, item.home))
        top = item.home.path.split("/", 1)[0]
        yield _exported(path, folder, item.path.removesuffix(item.home.path) + top)


def _counts(store: Store, version: Version) -> Counts:
    """Return how much of a version can be written."""
    left = [item for item in version.items if not store.erased(item.home)]
    people = {item.subject for item in left}
    counted = len(people) if "" not in people else 0
    whole = len(left) == len(version.items)
    return Counts(sum(item.rows for item in left), len(left), version.facts.subjects if whole else counted)


def _exported(path: Path, folder: Path, group: str = "") -> Exported:
    return Exported(path.relative_to(folder).as_posix(), sha256_of(path), path.stat().st_size, group)
