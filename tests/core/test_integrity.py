"""Edits, cuts, rollbacks and forks of the book: each is found, with exit code 5."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sfumato.core.anchor import FileAnchor, Head
from sfumato.core.book import row_hash
from sfumato.core.errors import IntegrityError, LedgerRolledBack, LedgerTampered
from sfumato.core.event import Gaussian, PureDP
from sfumato.core.files import canonical
from sfumato.core.ledger import Ledger
from sfumato.core.verify import verify


@pytest.fixture
def sound(shelf):
    """A shelf with a book of 13 rows, five of them releases."""
    ledger = Ledger(shelf.where, FileAnchor(shelf.heads), create=True)
    ledger.open_population("p", epsilon=1, delta="1e-6", unit="person")
    ledger.open_share("p", "all", kind="filter", epsilon=1, delta="1e-6")
    for _ in range(5):
        charge(ledger)
    ledger.close()
    return shelf


def charge(ledger: Ledger) -> Head:
    row = ledger.reserve({}, Gaussian(50), population="p", share="all")
    return ledger.settle(row.seq, receipt="r").head


def opened(shelf, *, anchored: bool = True) -> Ledger:
    return Ledger(shelf.where, FileAnchor(shelf.heads) if anchored else None)


def test_a_sound_book_verifies(sound) -> None:
    result = verify(opened(sound))
    assert (result.rows, result.releases, result.anchored) == (13, 5, True)
    assert not verify(opened(sound, anchored=False)).anchored


def test_a_restored_older_copy_is_refused_while_the_anchor_survives(sound) -> None:
    old = sound.save()
    charge(ledger := opened(sound))
    ledger.close()
    sound.restore(old)
    with pytest.raises(LedgerRolledBack, match="older") as caught:
        opened(sound)
    assert caught.value.exit_code == 5


def test_a_restored_older_copy_is_refused_while_one_receipt_survives(sound) -> None:
    old = sound.save()
    head = charge(ledger := opened(sound))
    ledger.close()
    sound.restore(old)
    sound.heads.unlink()
    ledger = opened(sound, anchored=False)
    verify(ledger)  # a chain alone does not reveal it: this is why anchors and receipts exist
    with pytest.raises(LedgerRolledBack):
        ledger.know([head])
    with pytest.raises(LedgerRolledBack):  # and from then on everything is refused
        charge(ledger)


def test_a_copy_put_back_while_the_book_is_open_is_refused(sound) -> None:
    old = sound.save()
    charge(ledger := opened(sound))
    ledger.close()
    fresh = opened(sound)
    sound.restore(old)
    with pytest.raises(IntegrityError):
        charge(fresh)


def test_two_copies_that_went_on_separately_are_found(sound) -> None:
    twin = sound.restore(sound.save(), sound.elsewhere())
    charge(opened(sound))
    other = Ledger(twin, None)
    charge(other)
    other.close()
    with pytest.raises(LedgerTampered, match="went on separately"):
        Ledger(twin, FileAnchor(sound.heads))


def test_an_edited_row_is_found(sound) -> None:
    sound.edit(("UPDATE entries SET body = replace(body, '50', '51') WHERE seq = 4", ()))
    with pytest.raises(LedgerTampered, match=r"row 4 .*hash"):
        verify(opened(sound))


@pytest.mark.parametrize("seq", [4, 5, 13])
def test_a_removed_row_is_found(sound, seq: int) -> None:
    sound.edit(("DELETE FROM entries WHERE seq = ?", (seq,)))
    with pytest.raises(IntegrityError):
        verify(opened(sound))


def forge(sound, seq: int, change) -> None:
    """Edit one row and chain everything after it again, as someone who knows the format would."""
    prev, statements = "0" * 64, []
    for number, kind, share, ref, body, _, _ in sound.rows():
        data = json.loads(body)
        if number == seq:
            change(data)
        digest = row_hash(number, kind, share, ref, data, prev)
        statements.append(
            (
                "UPDATE entries SET body = ?, prev = ?, hash = ? WHERE seq = ?",
                (canonical(data).decode(), prev, digest, number),
            )
        )
        prev = digest
    sound.edit(*statements)


def _cheaper(data: dict) -> None:
    data["event"]["noise_multiplier"] = "500"


def _less_charged(data: dict) -> None:
    data["charge"]["renyi"] = ["0" for _ in data["charge"]["renyi"]]


def _totals_reset(data: dict) -> None:
    data["after"]["renyi"] = ["0" for _ in data["after"]["renyi"]]


def _clock_back(data: dict) -> None:
    data["at"] = "2001-01-01T00:00:00+00:00"


@pytest.mark.parametrize("change", [_cheaper, _less_charged, _totals_reset, _clock_back])
def test_a_forged_chain_does_not_add_up_even_without_an_anchor(sound, change) -> None:
    forge(sound, 6, change)
    with pytest.raises(LedgerTampered, match="row"):
        verify(opened(sound, anchored=False))
    with pytest.raises(LedgerTampered, match="not the row that was seen"):
        opened(sound)


def test_loosened_thresholds_are_found(sound) -> None:
    def loosen(data: dict) -> None:
        data["terms"]["thresholds"] = [str(10**30) for _ in data["terms"]["thresholds"]]

    forge(sound, 3, loosen)
    with pytest.raises(LedgerTampered, match="thresholds"):
        verify(opened(sound, anchored=False))


def test_the_clock_set_back_does_not_reorder_the_book(sound, monkeypatch) -> None:
    monkeypatch.setattr("sfumato.core.ledger._now", lambda: "1999-01-01T00:00:00+00:00")
    charge(ledger := opened(sound))
    assert verify(ledger).rows == 15


def test_a_torn_anchor_line_is_ignored_and_a_forged_one_is_not(sound) -> None:
    heads = sound.heads
    heads.write_bytes(heads.read_bytes() + b"99 abc")
    verify(opened(sound))
    heads.write_bytes(heads.read_bytes() + b"\nnonsense\n")
    with pytest.raises(IntegrityError, match="does not read"):
        opened(sound)


def test_appending_out_of_order_keeps_the_newest_head(tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path / "a")
    assert anchor.newest() is None
    for seq in (1, 3, 2):
        anchor.advance(Head(seq, f"{seq}" * 4))
    assert anchor.newest() == Head(3, "3333")


def test_thousands_of_rows_verify(where: str) -> None:
    ledger = Ledger(where, create=True)
    ledger.open_population("p", epsilon=1000, delta=0, unit="person")
    ledger.open_share("p", "s", kind="sum", epsilon=1000, delta=0)
    for _ in range(1000):
        ledger.settle(ledger.reserve({}, PureDP("0.001"), population="p", share="s").seq, receipt="r")
    assert verify(ledger).rows == 2003


@pytest.mark.slow
def test_a_hundred_thousand_rows_verify_in_seconds() -> None:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=1000, delta="1e-6", unit="person")
    ledger.open_share("p", "s", kind="filter", epsilon=1000, delta="1e-6")
    for number in range(50_000):
        event = PureDP("0.001") if number % 2 else Gaussian(500)
        ledger.settle(ledger.reserve({}, event, population="p", share="s").seq, receipt="0" * 64)
    start = time.perf_counter()
    assert verify(ledger).rows == 100_003
    assert time.perf_counter() - start < 30  # some 4 seconds on a machine at rest
