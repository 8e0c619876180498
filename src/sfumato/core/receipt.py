"""Receipts: what was released, for which purpose, under which guarantee; they travel with the artefact.

A receipt verifies on its own: its digest is over all it says, its outputs are named by hash, and the ledger
rows it carries are chained. It proves that nothing in it was changed by accident and, with the ledger, that
this release was charged. It is not signed: without the ledger it does not prove who wrote it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sfumato.core.anchor import Head
from sfumato.core.book import Entry
from sfumato.core.errors import ReceiptInvalid
from sfumato.core.files import digest_of, sha256_of, write_whole

if TYPE_CHECKING:
    from sfumato.core.ledger import Ledger

FORMAT = "sfumato-receipt/1"
GuaranteeType = Literal["proven", "tested", "heuristic"]
GUARANTEES: tuple[GuaranteeType, ...] = ("proven", "tested", "heuristic")


@dataclass(frozen=True, slots=True)
class Output:
    """One released file, by content: no name, because names can be personal data."""

    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> Output:
        """Describe a file."""
        return cls(sha256_of(path), path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt.

    >>> receipt = Receipt({"guarantee": {"type": "heuristic"}, "outputs": []})
    >>> receipt.verify() is receipt
    True

    Args:
        body: plain data: plan, guarantee, outputs, facts; no personal data.
        rows: the ledger's rows of this release: a reservation and then a settlement for each account that
            it charged; empty when nothing was recorded.
    """

    body: dict[str, Any]
    rows: tuple[Entry, ...] = field(default=())

    @property
    def digest(self) -> str:
        """SHA-256 over the body."""
        return digest_of(self.body)

    @property
    def guarantee(self) -> GuaranteeType:
        """proven, tested or heuristic."""
        kind: GuaranteeType = self.body["guarantee"]["type"]
        return kind

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The released files."""
        return tuple(Output(**item) for item in self.body["outputs"])

    @property
    def recorded(self) -> bool:
        """Whether a ledger holds this release."""
        return bool(self.rows)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The ledger heads that this receipt has seen."""
        return tuple(row.head for row in self.rows)

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "format": FORMAT,
            "digest": self.digest,
            **self.body,
            "ledger_rows": [row.to_data() for row in self.rows],
        }

    def write(self, path: Path) -> None:
        """Write the receipt as JSON; the file appears whole."""
        write_whole(path, json.dumps(self.to_data(), indent=2, sort_keys=False, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Receipt:
        """Read a receipt and check that it verifies on its own.

        Raises:
            ReceiptInvalid: the file is not a receipt, or was changed.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ReceiptInvalid(f"{path} does not read as a receipt: {error}") from error
        return cls.from_data(data, where=str(path))

    @classmethod
    def from_data(cls, data: Any, *, where: str = "the receipt") -> Receipt:
        """Read a receipt from plain data and check that it verifies on its own."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ReceiptInvalid(f"{where} is not a receipt of format {FORMAT}")
        body = {key: value for key, value in data.items() if key not in ("format", "digest", "ledger_rows")}
        try:
            receipt = cls(body, tuple(Entry.from_data(row) for row in data.get("ledger_rows", [])))
            claimed = data["digest"]
            if claimed != receipt.digest:
                raise ReceiptInvalid(f"{where} was changed after it was written: its digest does not match")
            return receipt.verify(where=where)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ReceiptInvalid(f"{where} is not a whole receipt: {error}") from error

    def verify(self, *, where: str = "the receipt") -> Receipt:
        """Check the receipt against itself: guarantee type, and the ledger rows it carries.

        Raises:
            ReceiptInvalid: says what does not match.
        """
        if self.body.get("guarantee", {}).get("type") not in GUARANTEES:
            raise ReceiptInvalid(f"{where} names no guarantee type ({', '.join(GUARANTEES)})")
        if not self.rows:
            return self
        for row in self.rows:
            if row.computed_hash() != row.hash:
                raise ReceiptInvalid(f"{where} carries ledger row {row.seq}, whose hash does not match it")
        kinds = [row.kind for row in self.rows]
        accounts = len(kinds) // 2
        if kinds != ["reserve"] * accounts + ["settle"] * accounts:
            raise ReceiptInvalid(f"{where} must carry a reservation and its settlement, and carries {kinds}")
        reserve, settle = self.rows[0], self.rows[accounts]
        _check_group(self.rows[:accounts], self.rows[accounts:], where)
        if settle.ref != reserve.seq or settle.body.get("receipt") != self.digest:
            raise ReceiptInvalid(f"{where} carries a settlement that belongs to another receipt")
        if reserve.body.get("plan", {}).get("digest") != self.body.get("plan_digest"):
            raise ReceiptInvalid(f"{where} carries a reservation that was made for another plan")
        return self

    def verify_files(self, files: Iterable[Path]) -> tuple[Path, ...]:
        """Return the files that this receipt does not name; raise when one that it names is absent.

        Raises:
            ReceiptInvalid: a released file is missing, or was changed.
        """
        wanted = {output.sha256 for output in self.outputs}
        found, foreign = set(), []
        for path in files:
            digest = sha256_of(path)
            if digest in wanted:
                found.add(digest)
            else:
                foreign.append(path)
        if missing := wanted - found:
            raise ReceiptInvalid(
                f"{len(missing)} of {len(wanted)} released files are missing or were changed; "
                f"first: sha256 {min(missing)}"
            )
        return tuple(foreign)

    def verify_ledger(self, ledger: Ledger) -> None:
        """Check that the ledger holds this receipt's rows.

        Raises:
            ReceiptInvalid: the receipt was not recorded, or by another ledger.
            LedgerRolledBack, LedgerTampered: the ledger does not hold the rows that the receipt has seen.
        """
        if not self.rows:
            raise ReceiptInvalid("this receipt was made without a project: no ledger holds it")
        if self.body.get("ledger") != ledger.id:
            raise ReceiptInvalid(
                f"this receipt belongs to ledger {self.body.get('ledger')}, and this project has {ledger.id}"
            )
        try:
            ledger.compare(self.heads)
        except OverflowError as error:
            raise ReceiptInvalid("this receipt names a ledger row that no ledger has") from error


def _check_group(reserved: tuple[Entry, ...], ended: tuple[Entry, ...], where: str) -> None:
    """Check that a release's rows are all there and belong together."""
    names = [row.share for row in reserved[1:]]
    if reserved[0].body.get("with", []) != names:
        raise ReceiptInvalid(
            f"{where} does not carry a reservation for each account that the first one names"
        )
    for rows in (reserved, ended):
        for before, row in itertools.pairwise(rows):
            if row.prev != before.hash or row.seq != before.seq + 1 or row.body.get("of") != rows[0].seq:
                raise ReceiptInvalid(f"{where} carries row {row.seq}, which is not of the same release")
    for row, end in zip(reserved, ended, strict=True):
        if end.ref != row.seq or end.share != row.share:
            raise ReceiptInvalid(f"{where} carries row {end.seq}, which does not end row {row.seq}")
