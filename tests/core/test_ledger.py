"""The book: charges, settlement, refusals, races, restarts."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.anchor import FileAnchor
from sfumato.core.errors import (
    BudgetSpent,
    IntegrityError,
    InvalidRequest,
    LedgerTampered,
    LedgerUnavailable,
    PolicyRefused,
)
from sfumato.core.event import Event, Gaussian, NoEvent, PureDP, Repeated
from sfumato.core.ledger import Ledger
from sfumato.core.verify import verify


def book(path: Path | str = ":memory:", *, epsilon: object = 1, kind: str = "filter") -> Ledger:
    anchor = FileAnchor(Path(path).with_suffix(".heads")) if path != ":memory:" else None
    ledger = Ledger(path, anchor, create=True)
    ledger.open_population("residents", epsilon=epsilon, delta="1e-6", unit="person")  # type: ignore[arg-type]
    ledger.open_share("residents", "all", kind=kind, epsilon=epsilon, delta="1e-6")  # type: ignore[arg-type]
    return ledger


def reserve(ledger: Ledger, event: Event, delta: object = 0):
    return ledger.reserve({}, event, population="residents", share="all", delta=delta)  # type: ignore[arg-type]


def _nested(depth: int) -> Event:
    event: Event = PureDP("0.001")
    for _ in range(depth):
        event = Repeated(event, 1)
    return event


def test_121_gaussian_releases_one_by_one_and_the_refusal_explains_itself() -> None:
    ledger = book()
    for _ in range(121):
        row = reserve(ledger, Gaussian(50))
        ledger.settle(row.seq, receipt="r")
    with pytest.raises(
        BudgetSpent, match=r"Asked.*Left: epsilon 0\.00.*noise multiplier at least"
    ) as refusal:
        reserve(ledger, Gaussian(50))
    assert refusal.value.exit_code == 4
    assert verify(ledger).releases == 121


@pytest.mark.parametrize("k", [2, 3, 6, 7, 10, 49, 61])
def test_k_requests_of_an_epsilon_kth_fit_in_the_book(k: int) -> None:
    ledger = book()
    for _ in range(k):
        reserve(ledger, PureDP(1 / k))
    assert ledger.balances()[0].spent_epsilon <= 1


@pytest.mark.slow
def test_k_requests_of_an_epsilon_kth_fit_in_the_book_for_every_k() -> None:
    for k in range(2, 1001):
        ledger = book()
        for _ in range(k):
            reserve(ledger, PureDP(1 / k))
        ledger.close()


def test_settling_lowers_once_and_never_raises() -> None:
    ledger = book()
    row = reserve(ledger, Repeated(Gaussian(50), 100))
    with pytest.raises(InvalidRequest, match="never to more"):
        ledger.settle(row.seq, receipt="r", event=Repeated(Gaussian(50), 101))
    high = ledger.balances()[0].spent_epsilon
    ledger.settle(row.seq, receipt="r", event=Repeated(Gaussian(50), 10))
    assert ledger.balances()[0].spent_epsilon < high
    for again in (
        lambda: ledger.settle(row.seq, receipt="r", event=NoEvent()),
        lambda: ledger.void(row.seq, reason="x"),
    ):
        with pytest.raises(InvalidRequest, match="already ended"):
            again()
    with pytest.raises(InvalidRequest, match="not a reservation"):
        ledger.settle(1, receipt="r")
    verify(ledger)


def test_a_void_gives_everything_back() -> None:
    ledger = book()
    before = ledger.totals("residents", "all")
    row = reserve(ledger, PureDP(1))
    ledger.void(row.seq, reason="drew nothing")
    assert ledger.totals("residents", "all") == before
    reserve(ledger, PureDP(1))
    verify(ledger)


def test_a_sum_share_adds_epsilon_and_delta() -> None:
    ledger = book(kind="sum", epsilon=2)
    reserve(ledger, Repeated(Gaussian(50), 100), delta="5e-7")
    balance = ledger.balances()[0]
    assert balance.spent_delta == Fraction(5, 10**7)
    with pytest.raises(BudgetSpent):
        reserve(ledger, Gaussian(50), delta="6e-7")


def test_shares_never_add_up_to_more_than_the_population() -> None:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=1, delta=0, unit="person")
    for index in range(3):
        ledger.open_share("p", f"s{index}", kind="sum", epsilon=1 / 3, delta=0)
    with pytest.raises(PolicyRefused, match="epsilon 0"):
        ledger.open_share("p", "more", kind="sum", epsilon="1e-9", delta=0)
    verify(ledger)


def test_opening_again_changes_nothing_and_other_terms_are_refused() -> None:
    ledger = book()
    head = ledger.head()
    ledger.open_population("residents", epsilon=1, delta="1e-6", unit="person")
    ledger.open_share("residents", "all", kind="filter", epsilon=1, delta="1e-6")
    assert ledger.head() == head
    with pytest.raises(PolicyRefused, match="fixed once opened"):
        ledger.open_share("residents", "all", kind="filter", epsilon="0.5", delta="1e-6")
    with pytest.raises(PolicyRefused, match="raised on purpose"):
        ledger.open_population("residents", epsilon=2, delta="1e-6", unit="person")
    with pytest.raises(PolicyRefused, match="already hold"):
        ledger.open_population("residents", epsilon="0.5", delta="1e-6", unit="person")
    with pytest.raises(PolicyRefused, match="unit"):
        ledger.open_population("residents", epsilon=1, delta="1e-6", unit="image")
    ledger.open_population("residents", epsilon=2, delta="1e-6", unit="person", reason="ethics board 12")
    ledger.open_share("residents", "second", kind="sum", epsilon=1, delta=0)
    assert verify(ledger).rows == 5


@pytest.mark.parametrize("name", ["", "a/b", "x" * 101, "a\nb"])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        Ledger(":memory:").open_population(name, epsilon=1, delta=0, unit="person")


def test_an_event_without_a_population_is_refused_and_a_filter_needs_none() -> None:
    ledger = book()
    with pytest.raises(InvalidRequest, match="population"):
        ledger.reserve({}, Gaussian(1))
    with pytest.raises(InvalidRequest, match="residents/all"):
        ledger.reserve({}, Gaussian(1), population="residents", share="nobody")
    row = ledger.reserve({}, NoEvent())
    ledger.settle(row.seq, receipt="r")
    assert verify(ledger).releases == 1


def test_a_refused_request_leaves_no_row() -> None:
    ledger = book()
    head = ledger.head()
    with pytest.raises(BudgetSpent):
        reserve(ledger, PureDP(3))
    assert ledger.head() == head


def test_the_book_survives_a_restart(tmp_path: Path) -> None:
    ledger = book(tmp_path / "l.db")
    reserve(ledger, PureDP("0.75"))
    ledger.close()
    again = book(tmp_path / "l.db")
    with pytest.raises(BudgetSpent):
        reserve(again, PureDP("0.5"))
    reserve(again, PureDP("0.25"))


def test_rows_cannot_be_changed_through_sqlite(tmp_path: Path) -> None:
    book(tmp_path / "l.db").close()
    connection = sqlite3.connect(tmp_path / "l.db")
    for statement in ("UPDATE entries SET body = '{}'", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no ledger at"):
        Ledger(tmp_path / "none.db")
    (tmp_path / "bad.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerTampered, match="not a whole SQLite file"):
        Ledger(tmp_path / "bad.db")


def test_a_locked_book_is_busy_and_not_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.core.book.BUSY_SECONDS", 0.05)
    one, two = book(tmp_path / "l.db"), book(tmp_path / "l.db")
    with one.book.writing(), pytest.raises(LedgerUnavailable, match="try again"):
        reserve(two, PureDP("0.1"))
    reserve(two, PureDP("0.1"))


def test_a_reader_left_half_way_keeps_nobody_from_writing(tmp_path: Path) -> None:
    ledger = book(tmp_path / "l.db")
    reading = ledger.entries()
    next(reading)
    reserve(book(tmp_path / "l.db"), PureDP("0.1"))
    assert [row.kind for row in reading] == ["population", "share"]  # as it was when the page was read


@pytest.mark.parametrize("event", [PureDP(Fraction(1, 3**700)), _nested(9)])
def test_an_event_that_cannot_be_read_back_is_refused(event: Event) -> None:
    ledger = book()
    head = ledger.head()
    with pytest.raises(InvalidRequest):
        reserve(ledger, event)
    assert ledger.head() == head


def test_charges_with_odd_denominators_can_be_taken_back() -> None:
    ledger, rows = book(epsilon=1000, kind="sum"), []
    for index in range(200):
        rows.append(reserve(ledger, PureDP(Fraction(1, 10**40 + 2 * index + 1))))
    for row in rows:
        ledger.void(row.seq, reason="x")
    assert ledger.totals("residents", "all").epsilon == 0
    verify(ledger)


WORKER = Path(__file__).with_name("worker.py")


def test_eight_processes_race_for_room_for_a_hundred(tmp_path: Path) -> None:
    book(tmp_path / "l.db", kind="sum").close()
    workers = [
        subprocess.Popen(
            [sys.executable, WORKER, "race", tmp_path, "40"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(8)
    ]
    while len(list(tmp_path.glob("ready-*"))) < 8:
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.02)
    (tmp_path / "go").touch()
    outputs = [worker.communicate(timeout=200) for worker in workers]
    assert [error for _, error in outputs if error] == []
    counts = [tuple(map(int, output.split())) for output, _ in outputs]
    assert sum(accepted for accepted, _ in counts) == 100
    assert sum(refused for _, refused in counts) == 220
    ledger = book(tmp_path / "l.db", kind="sum")
    assert verify(ledger).releases == 100
    assert ledger.balances()[0].spent_epsilon == 1


actions = st.lists(
    st.one_of(
        st.fractions(0, "1/2", max_denominator=50).map(lambda e: ("reserve", PureDP(e))),
        st.sampled_from([5, 20, 50]).map(lambda s: ("reserve", Repeated(Gaussian(s), 4))),
        st.integers(0, 5).map(lambda i: ("void", i)),
        st.integers(0, 5).map(lambda i: ("settle", i)),
        st.integers(0, 5).map(lambda i: ("lower", i)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_whatever_happens_the_book_verifies_and_stays_within_the_budget(script) -> None:
    ledger, open_rows = book(), []
    for what, value in script:
        if what == "reserve":
            try:
                open_rows.append(reserve(ledger, value))
            except BudgetSpent:
                continue
        elif open_rows:
            row = open_rows.pop(value % len(open_rows))
            if what == "void":
                ledger.void(row.seq, reason="x")
            else:
                event = NoEvent() if what == "lower" else None
                ledger.settle(row.seq, receipt="r", event=event)
        assert ledger.balances()[0].spent_epsilon <= 1
    result = verify(ledger)
    assert len(result.unfinished) == len(open_rows)
