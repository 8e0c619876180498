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


@pytest.mark.parametrize("seq", [3, 13])
def test_edited_terms_or_totals_admit_nothing_even_before_anyone_verifies(sound, seq: int) -> None:
    """Row 3 holds the share's terms, row 13 its totals; the hash column is left as it was."""
    sound.edit(("UPDATE entries SET body = replace(body, '\"0\"', '\"-1\"') WHERE seq = ?", (seq,)))
    with pytest.raises(LedgerTampered, match="edited"):
        charge(opened(sound, anchored=False))


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


def _nobody_pays(data: dict) -> None:
    data["event"] = {"kind": "gaussian"}


@pytest.mark.parametrize("change", [_nobody_pays, _cheaper, _less_charged, _totals_reset, _clock_back])
def test_a_forged_chain_does_not_add_up_even_without_an_anchor(sound, change) -> None:
    forge(sound, 6, change)
    with pytest.raises(LedgerTampered, match="row"):
        verify(opened(sound, anchored=False))
    with pytest.raises(LedgerTampered, match="not the row that was seen"):
        opened(sound)


@pytest.mark.parametrize(
    ("seq", "change"),
    [
        (3, lambda data: data["terms"].update(relation="replace-one")),
        (3, lambda data: data["after"].update(epsilon="-1000")),
        (3, lambda data: data.update(terms=None)),
        (4, lambda data: data.pop("charge")),
        (4, lambda data: data.update(delta="1/0")),
        (4, lambda data: data.update(event=[])),
        (5, lambda data: data.update(after=7)),
    ],
)
def test_odd_rows_are_named_and_crash_nothing(sound, seq: int, change) -> None:
    forge(sound, seq, change)
    with pytest.raises(LedgerTampered, match=f"row {seq}"):
        verify(opened(sound, anchored=False))


def test_a_budget_raised_by_hand_is_found(sound) -> None:
    ledger = opened(sound)
    ledger.open_population("p", epsilon=2, delta="1e-6", unit="person", reason="board decision")
    ledger.close()
    forge(sound, 14, lambda data: data.update(reason=""))
    with pytest.raises(LedgerTampered, match="row 14"):
        verify(opened(sound, anchored=False))


def test_a_row_of_another_kind_ends_no_reservation(sound) -> None:
    """Else one such row would keep a release from being settled."""
    ledger = opened(sound)
    row = ledger.reserve({}, PureDP("0.01"), population="p", share="all")
    with ledger.book.writing():
        ledger.book.append("refusal", "", None, {"at": ledger.time()})
        ledger.book.append("roles", "", row.seq, {"at": ledger.time()})
    with pytest.raises(LedgerTampered, match="row 16"):
        verify(ledger)


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


@pytest.mark.parametrize("torn", [b"99", b"99 abc", b"\xff\xfe", b"99 " + b"0" * 63, b"1" * 40 + b" x"])
def test_a_torn_anchor_line_stops_nobody_and_swallows_nothing(sound, torn: bytes) -> None:
    heads = sound.heads
    heads.write_bytes(heads.read_bytes() + torn)
    head = charge(ledger := opened(sound))
    ledger.close()
    assert FileAnchor(heads).newest() == head
    charge(opened(sound))


def test_an_anchor_that_has_seen_two_rows_of_one_number_says_so(sound) -> None:
    anchor = FileAnchor(sound.heads)
    anchor.advance(Head(13, "0" * 64))
    with pytest.raises(LedgerTampered, match="two copies"):
        opened(sound)


def test_an_anchor_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        FileAnchor(tmp_path).newest()


def test_appending_out_of_order_keeps_the_newest_head(tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path / "a")
    assert anchor.newest() is None
    for seq in (1, 3, 2):
        anchor.advance(Head(seq, f"{seq}" * 64))
    assert anchor.newest() == Head(3, "3" * 64)


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
