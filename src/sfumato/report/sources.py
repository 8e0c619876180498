"""What a report is made from, fixed: so many rows of the ledger, such versions, that policy.

An old report must still verify when the project has gone on. So a report says how far each book went when it
was made, and whoever verifies it reads exactly as far. Books only grow, versions never change, and a copy of
the policy is kept under its hash.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from sfumato.core.book import Entry
from sfumato.core.errors import IntegrityError, LedgerTampered, ReceiptInvalid
from sfumato.core.files import sha256_of, write_whole
from sfumato.core.ledger import Ledger
from sfumato.core.merkle import HASH
from sfumato.core.policy import FILE_NAME, Policy
from sfumato.core.project import FOLDER, Project
from sfumato.core.purposes import clock
from sfumato.core.receipt import Receipt
from sfumato.core.verify import verify
from sfumato.data.catalogue import Catalogue
from sfumato.data.version import Version

POLICIES = "report-policies"
RETENTION_LOG = "retention.jsonl"
#: Seconds between a row that settles a release and its receipt's file, at most.
PATIENCE = 10.0
#: Rows among which such a row can be.
NEWEST = 500


@dataclass(frozen=True, slots=True)
class Extent:
    """How far each source went when a report was made.

    Args:
        at: when, UTC.
        ledger, rows, head: the ledger's own name, its rows, and the hash of the last one.
        policy: SHA-256 of sfumato.toml.
        register, consents, consent_head: the same of the consent register; empty where there is none.
        versions: hash of every version by dataset@label.
        retired: those of them that were retired in the second of `at`: notes of that have no finer time.
        vault: whether stored data were encrypted.
    """

    at: str
    ledger: str
    rows: int
    head: str
    policy: str
    register: str = ""
    consents: int = 0
    consent_head: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    retired: tuple[str, ...] = ()
    vault: bool = False

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        data = {name: getattr(self, name) for name in self.__slots__}
        return data | {"versions": dict(self.versions), "retired": list(self.retired)}

    @classmethod
    def from_data(cls, data: Any) -> Extent:
        """Read it back.

        Raises:
            IntegrityError: it is not whole.
        """
        try:
            extent = cls(**{name: data[name] for name in cls.__slots__} | {"retired": tuple(data["retired"])})
            datetime.fromisoformat(extent.at)
            whole = type(extent.rows) is int and type(extent.consents) is int and extent.rows > 0
            hashes = (extent.head, extent.policy)
            texts = (extent.at, extent.ledger, extent.head, extent.policy, extent.register)
            if not whole or not all(isinstance(text, str) for text in texts):
                raise ValueError("a number or text is of another kind")
            if not all(HASH.fullmatch(text) for text in hashes):
                raise ValueError("a hash is none")
            if {type(one) for pair in extent.versions.items() for one in pair} - {str}:
                raise ValueError("versions")
            return extent
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(f"the report does not say what it was made from ({error!r})") from error


class Sources:
    """A project's books, read as far as an extent says."""

    def __init__(self, project: Project, ledger: Ledger, extent: Extent) -> None:
        self.project, self.ledger, self.extent = project, ledger, extent

    @classmethod
    def now(cls, project: Project) -> Sources:
        """Return a project as it is now; its ledger is verified, and a copy of its policy kept.

        Raises:
            IntegrityError: the ledger, a version or the consent register does not verify.
            PolicyError: the policy does not read.
        """
        digest = _keep_policy(project)
        ledger = project.book()
        found = verify(ledger)
        register = project.consent.book.last() if _consent_path(project).exists() else None
        extent = Extent(
            at=clock(ledger).astimezone(UTC).isoformat(timespec="microseconds"),
            ledger=ledger.id,
            rows=found.rows,
            head=found.head,
            policy=digest,
            register=project.consent.id if register else "",
            consents=register.seq if register else 0,
            consent_head=register.hash if register else "",
            versions={one.spec: one.hash for one in Catalogue.of(project).all()},
            vault=(project.root / FOLDER / "keys").is_dir(),
        )
        sources = cls(project, ledger, extent)
        sources._await_receipts()
        second = extent.at[:19]
        newly = tuple(one.spec for one in sources.versions if sources.noted(one)[:19] == second)
        return cls(project, ledger, replace(extent, retired=newly))

    def _await_receipts(self) -> None:
        """Wait for receipts that another process is about to write, just after their rows."""
        young = (self.at - timedelta(seconds=PATIENCE)).isoformat(timespec="microseconds")
        named = {row.body["receipt"][:16] for row in self.entries[-NEWEST:] if _settled_since(row, young)}
        until = time.monotonic() + PATIENCE
        while named - {path.stem[13:] for path in self.project.receipts.glob("[0-9]*-*.json")}:
            if time.monotonic() > until:
                return  # whoever was to write them was stopped
            time.sleep(0.05)

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()

    @cached_property
    def policy(self) -> Policy:
        """The policy as it was.

        Raises:
            IntegrityError: no policy with that hash is kept here.
        """
        digest = self.extent.policy
        for path in (self.project.root / FILE_NAME, _policy_path(self.project, digest)):
            if path.is_file() and sha256_of(path) == digest:
                return Policy.parse(path.read_text(encoding="utf-8"))
        raise IntegrityError(
            f"the policy with SHA-256 {digest[:16]}, by which the report was made, is neither {FILE_NAME} "
            f"nor kept under {FOLDER}/{POLICIES}: restore it, or the report names a policy that it was not "
            "made by"
        )

    @cached_property
    def entries(self) -> list[Entry]:
        """The ledger's rows, as far as the report goes.

        Raises:
            LedgerTampered: names the row.
        """
        rows = []
        for row in self.ledger.entries():
            if row.seq > self.extent.rows:
                break
            rows.append(row)
        if len(rows) < self.extent.rows or rows[-1].hash != self.extent.head:
            raise LedgerTampered(
                f"row {self.extent.rows} of the ledger is not the one that the report was made at: rows were "
                "changed or cut off, or the report belongs to another ledger"
            )
        return rows

    @cached_property
    def consents(self) -> list[Entry]:
        """The consent register's rows, as far as the report goes.

        Raises:
            IntegrityError: another register, or one that was changed.
        """
        extent = self.extent
        if not extent.register:
            return []
        if not _consent_path(self.project).exists() or self.project.consent.id != extent.register:
            raise IntegrityError("the consent register that the report was made from is not here: restore it")
        rows = [row for row in self.project.consent.book.all() if row.seq <= extent.consents]
        if len(rows) != extent.consents or rows[-1].hash != extent.consent_head:
            raise LedgerTampered(
                f"row {extent.consents} of the consent register is not the one that the report was made at"
            )
        return rows

    @cached_property
    def versions(self) -> list[Version]:
        """The versions that there were, by dataset and number.

        Raises:
            IntegrityError: one is missing, or another stands in its place.
        """
        found = {one.spec: one for one in Catalogue.of(self.project).all()}
        for spec, digest in self.extent.versions.items():
            if spec not in found or found[spec].hash != digest:
                raise IntegrityError(
                    f"the report was made from {spec} with hash {digest[:16]}, and the catalogue has "
                    f"{found[spec].hash[:16] if spec in found else 'none'}: restore it"
                )
        return sorted((found[spec] for spec in self.extent.versions), key=_place)

    def retired(self, version: Version) -> str:
        """Return when a version was retired, as far as the report goes; empty where it was not."""
        at = self.noted(version)
        if at[:19] == self.extent.at[:19]:
            return at if version.spec in self.extent.retired else ""
        return at if at < self.extent.at else ""

    def noted(self, version: Version) -> str:
        """Return when a version was retired, whenever that was; empty where it was not.

        Raises:
            IntegrityError: the note does not read.
        """
        path = Catalogue.of(self.project).root / version.dataset / f"{version.label}.retired"
        if not path.exists():
            return ""
        try:
            at = datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["at"])
            return at.astimezone(UTC).isoformat(timespec="seconds")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path} does not say when {version.spec} was retired") from error

    @property
    def at(self) -> datetime:
        """When the report was made."""
        return datetime.fromisoformat(self.extent.at)

    @cached_property
    def receipt_paths(self) -> dict[int, Path]:
        """The kept receipts by the row that settled them."""
        return {
            int(path.name[:12]): path
            for path in self.project.receipts.glob("[0-9]*-*.json")
            if path.name[:12].isdecimal()
        }

    def receipt(self, settled: Entry) -> Receipt | None:
        """Return the receipt that a settlement names; None where no copy is kept.

        Raises:
            ReceiptInvalid: the copy was changed.
        """
        path = self.receipt_paths.get(settled.seq)
        if path is None:
            return None
        receipt = Receipt.read(path)
        if receipt.digest != settled.body.get("receipt"):
            raise ReceiptInvalid(f"{path} is not the receipt that row {settled.seq} of the ledger names")
        return receipt

    def ended_by_retention(self) -> list[dict[str, Any]]:
        """Return what the retention log says was ended, as far as the report goes.

        Raises:
            IntegrityError: a line does not read.
        """
        log = self.project.root / FOLDER / RETENTION_LOG
        if not log.exists():
            return []
        lines = []
        for number, line in enumerate(log.read_bytes().split(b"\n")[:-1], 1):
            try:
                entry = json.loads(line)
                if entry["what"] == "ended" and datetime.fromisoformat(entry["at"]) <= self.at:
                    lines.append({"line": number, "dataset": str(entry["dataset"]), "at": str(entry["at"])})
            except (ValueError, KeyError, TypeError) as error:
                raise IntegrityError(f"line {number} of {log} does not read") from error
        return lines


def _place(version: Version) -> tuple[str, list[int]]:
    """Return where a version stands among others: 2, then 2w1, its part for one purpose, then 3."""
    return version.dataset, [int(digits) for digits in re.findall(r"\d+", version.label)]


def _settled_since(row: Entry, at: str) -> bool:
    return row.kind == "settle" and bool(row.body.get("receipt")) and str(row.body.get("at", "")) > at


def _keep_policy(project: Project) -> str:
    """Keep a copy of the policy under its hash, and return that."""
    project.policy  # noqa: B018  a policy that does not read gives no report
    content = (project.root / FILE_NAME).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    kept = _policy_path(project, digest)
    if not kept.exists():
        write_whole(kept, content, mode=0o600)
    return digest


def _policy_path(project: Project, digest: str) -> Path:
    return project.root / FOLDER / POLICIES / f"{digest}.toml"


def _consent_path(project: Project) -> Path:
    return project.root / FOLDER / "consent.db"
