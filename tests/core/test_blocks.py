"""Blocks: every block that is touched pays, all or none, and nobody gets a second budget."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core.blocks import Blocks
from sfumato.core.book import row_hash
from sfumato.core.errors import (
    BudgetSpent,
    IntegrityError,
    InvalidRequest,
    LedgerTampered,
    PolicyError,
    PolicyRefused,
    UnknownName,
)
from sfumato.core.event import NoEvent, PureDP
from sfumato.core.gate import Gate, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.core.verify import verify

HASH = "hash 4"
ALL = ("h000", "h001", "h002", "h003")


def book(where: str = ":memory:", rule: str = HASH) -> Ledger:
    ledger = Ledger(where, create=True)
    ledger.open_population("people", epsilon=1, delta=0, unit="person", blocks=rule)
    ledger.open_share("people", "all", kind="filter", epsilon=1, delta=0)
    return ledger


def reserve(ledger: Ledger, epsilon: object, *blocks: str, also: tuple = ()):
    event = PureDP(epsilon)  # type: ignore[arg-type]
    return ledger.reserve({}, event, population="people", share="all", blocks=blocks, also=also)


def spent(ledger: Ledger) -> dict[str, Fraction]:
    return {one.population: one.spent_epsilon for one in ledger.balances()}


def plan(**more: object) -> Plan:
    own = {
        "action": "query",
        "mechanism": "m",
        "guarantee": "proven",
        "statement": "s",
        "event": PureDP("0.1"),
    }
    return Plan(**(own | {"population": "people", "share": "all"} | more))  # type: ignore[arg-type]


def gate(ledger: Ledger) -> Gate:
    return Gate(Policy.parse('[project]\nname = "test"'), ledger)


def test_blocks_have_one_name_each_and_follow_each_other() -> None:
    quarter = Blocks.parse("enrolment quarter")
    assert quarter.between("2025-11-30", "2026-07-01") == ("2025-Q4", "2026-Q1", "2026-Q2", "2026-Q3")
    assert Blocks.parse("enrolment month").between("2025-12-31", "2026-01-01") == ("2025-12", "2026-01")
    assert Blocks.parse("enrolment year").between("2025-12-31", "2026-01-01") == ("2025", "2026")
    for bad in ("hash 1", "hash 257", "hash 04", "enrolment week", "", " hash 4"):
        with pytest.raises(InvalidRequest, match="enrolment"):
            Blocks.parse(bad)


def test_a_release_charges_all_blocks_or_those_named_and_ends_them_together(where: str) -> None:
    ledger = book(where)
    row = reserve(ledger, "0.25")
    assert spent(ledger) == {f"people#{block}": Fraction(1, 4) for block in ALL}
    assert [one.share for one in ledger.rows_of(row)] == [f"people#{block}/all" for block in ALL]
    with pytest.raises(InvalidRequest, match="part of the release"):
        ledger.settle(row.seq + 1, receipt="r")
    ledger.settle(row.seq, receipt="r", event=PureDP("0.125"))
    one = reserve(ledger, "0.5", "h002")
    ledger.void(one.seq, reason="drew nothing")
    reserve(ledger, "0.5", "h001", "h001")
    assert spent(ledger) == {f"people#{b}": Fraction(5 if b == "h001" else 1, 8) for b in ALL}
    checked = verify(ledger)
    assert (checked.releases, len(checked.unfinished)) == (1, 1)


def test_a_full_block_refuses_the_whole_release_and_leaves_no_row(where: str) -> None:
    ledger = book(where)
    reserve(ledger, 1, "h003")
    head = ledger.head()
    with pytest.raises(BudgetSpent, match=r"people#h003/all has no room.*1 of the 4.*other blocks"):
        reserve(ledger, "0.5")
    assert ledger.head() == head
    reserve(ledger, 1, "h000", "h001", "h002")
    verify(ledger)


def test_blocks_that_do_not_exist_are_refused(where: str) -> None:
    ledger = book(where, "enrolment year")
    with pytest.raises(UnknownName, match="block"):
        reserve(ledger, "0.1", "1999")
    with pytest.raises(UnknownName, match="block"):
        reserve(ledger, "0.1", "9999")
    ledger.open_population("others", epsilon=1, delta=0, unit="person")
    ledger.open_share("others", "all", kind="filter", epsilon=1, delta=0)
    with pytest.raises(InvalidRequest, match="no blocks"):
        ledger.reserve({}, PureDP("0.1"), population="others", share="all", blocks=("2026",))
    reserve(ledger, "0.5", also=(("others", "all"),))
    assert spent(ledger)["others"] == Fraction(1, 2)
    verify(ledger)


def test_how_people_are_cut_never_changes_even_when_the_budget_is_raised(where: str) -> None:
    ledger = book(where)
    for rule in ("", "hash 5", "enrolment year"):
        with pytest.raises(PolicyRefused, match="fixed for ever"):
            ledger.open_population("people", epsilon=1, delta=0, unit="person", blocks=rule)
    ledger.open_population("plain", epsilon=1, delta=0, unit="person")
    with pytest.raises(PolicyRefused, match="fixed for ever"):
        ledger.open_population("plain", epsilon=2, delta=0, unit="person", blocks=HASH, reason="why not")
    ledger.open_population("people", epsilon=2, delta=0, unit="person", blocks=HASH, reason="board 12")
    ledger.open_share("people", "second", kind="filter", epsilon=1, delta=0)
    ledger.reserve({}, PureDP(1), population="people", share="second")
    verify(ledger)


def test_names_and_relations_that_would_mix_blocks_up_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="'#'"):
        Ledger(":memory:").open_population("a#2026", epsilon=1, delta=0, unit="person")
    with pytest.raises(InvalidRequest, match="two blocks"):
        Ledger(":memory:").open_population(
            "a", epsilon=1, delta=0, unit="person", relation="replace-one", blocks=HASH
        )
    head = '[project]\nname = "t"\n[populations.{}]\nunit = "person"\nepsilon = 1\n{}'
    with pytest.raises(PolicyError, match="enrolment month"):
        Policy.parse(head.format("p", 'blocks = "weekly"'))
    with pytest.raises(PolicyError):
        Policy.parse(head.format('"p#1"', ""))
    assert Policy.parse(head.format("p", 'blocks = "hash 4"')).populations["p"].blocks == HASH


def test_the_gate_wants_every_block_and_population_that_a_version_touches(where: str) -> None:
    ledger = book(where)
    door = gate(ledger)
    facts = {"dataset": "d", "label": "1", "hash": "a" * 64, "how": "csv", "parents": []}
    whole = plan(datasets=(("d", "a" * 64),))
    with pytest.raises(PolicyRefused, match="not in the ledger"):
        door.open(whole)
    row = door.record_version(**facts, populations={"people": ()})
    assert door.record_version(**facts, populations={"people": ()}) == row
    assert row.body["populations"] == {"people": list(ALL)}
    with pytest.raises(IntegrityError, match="changed"):
        door.record_version(**(facts | {"hash": "b" * 64}), populations={"people": ()})
    with pytest.raises(PolicyRefused, match=r"1 blocks.*h003"):
        door.open(plan(datasets=(("d", "a" * 64),), blocks=ALL[:3]))
    ledger.open_population("others", epsilon=1, delta=0, unit="person")
    ledger.open_share("others", "all", kind="filter", epsilon=1, delta=0)
    with pytest.raises(PolicyRefused, match="does not charge"):
        door.open(plan(datasets=(("d", "a" * 64),), population="others"))
    door.open(plan(datasets=(("d", "a" * 64),), population="others", also=(("people", "all"),)))
    with door.open(whole) as permit:
        receipt = permit.settle()
    assert len(receipt.rows) == 8
    assert type(receipt).from_data(json.loads(json.dumps(receipt.to_data()))).verify()
    child = {"dataset": "d", "label": "2", "hash": "c" * 64, "parents": ["a" * 64]}
    for wrong in ({"how": "copy", "populations": {"people": ["h001"]}}, {"how": "copy", "populations": {}}):
        with pytest.raises(PolicyRefused, match="leaves out"):
            door.record_version(**child, **wrong)  # type: ignore[arg-type]
    door.record_version(**child, how="blocks", populations={"people": ["h001"]})
    door.open(plan(datasets=(("d", "c" * 64),), blocks=("h001",)))
    door.record_retired(dataset="d", label="2", hash="c" * 64, why="by hand")
    verify(ledger)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(ALL)), st.integers(1, 60), st.sampled_from("rsv")), max_size=12
    )
)
def test_any_sequence_equals_a_reference_and_a_careless_twin_does_not(steps) -> None:
    ledger, want, careless = book(), dict.fromkeys(ALL, 0), dict.fromkeys(ALL, 0)
    differs = False
    for chosen, percent, end in steps:
        named = sorted(chosen) or list(ALL)
        fits = all(want[block] + percent <= 100 for block in named)
        try:
            row = reserve(ledger, Fraction(percent, 100), *sorted(chosen))
        except BudgetSpent:
            assert not fits
            continue
        assert fits
        if end == "v":
            ledger.void(row.seq, reason="r")
            continue
        if end == "s":
            ledger.settle(row.seq, receipt="r")
        for block in named:
            want[block] += percent
        careless[named[0]] += percent  # the wrong twin: one block pays for all
        differs |= len(named) > 1
    assert spent(ledger) == {f"people#{block}": Fraction(value, 100) for block, value in want.items()}
    assert (careless != want) == differs
    verify(ledger)


def _forged(ledger: Ledger, change) -> Ledger:
    """Return a book with the same rows, changed, and chained anew."""
    twin, prev = Ledger(":memory:"), "0" * 64
    twin.book.connection.execute("DROP TRIGGER no_delete")  # type: ignore[attr-defined]
    twin.book.connection.execute("DELETE FROM entries")  # type: ignore[attr-defined]
    rows = change([row.to_data() for row in ledger.entries()])
    for seq, data in enumerate(rows, 1):
        data |= {"seq": seq, "prev": prev}
        data["hash"] = prev = row_hash(seq, data["kind"], data["share"], data["ref"], data["body"], prev)
        twin.book.put(type(ledger.head and next(ledger.entries())).from_data(data))
    return twin


def _set(at: int, **changes):
    def change(rows):
        rows[at] |= {key: value for key, value in changes.items() if key != "body"}
        rows[at]["body"] |= changes.get("body", {})
        return rows

    return change


def test_verify_names_a_forged_group_block_or_version() -> None:
    ledger = book()
    reserve(ledger, "0.1", "h000", "h001")  # rows 4 and 5 open the blocks, 6 and 7 reserve
    verify(_forged(ledger, lambda rows: rows))
    for change, why in (
        (lambda rows: rows[:6], "other accounts are missing"),
        (_set(6, share="people#h000/all"), "must stand here"),
        (_set(3, share="people#h004/all"), "no such block"),
        (_set(4, share="people#h000/all"), "opened once"),
        (_set(3, body={"terms": ledger.share("people", "all").to_data() | {"epsilon": "2"}}), "terms"),
        (_set(6, body={"of": 5}), "must stand here"),
        (_set(1, body={"blocks": "hash 2000"}), "blocks are"),
    ):
        with pytest.raises(LedgerTampered, match=why):
            verify(_forged(ledger, change))
    ledger.note(
        "version",
        "",
        {
            "dataset": "d",
            "label": "1",
            "hash": "a",
            "how": "csv",
            "parents": [],
            "populations": {"people": ["h000"]},
        },
    )
    with pytest.raises(LedgerTampered, match="leaves out the block"):
        verify(ledger)


def test_a_filter_release_needs_no_version(tmp_path: Path) -> None:
    with gate(book()).open(
        plan(guarantee="heuristic", event=NoEvent(), population="", share="", datasets=(("d", "x"),))
    ) as permit:
        permit.settle()
