"""Merkle proofs: every true one verifies, and no altered one does."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.core.event import NoEvent
from sfumato.core.ledger import Ledger
from sfumato.core.merkle import GrowthProof, Proof, growth, inclusion, root


def rows(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{number}".encode()).hexdigest() for number in range(count)]


def slow_root(leaves: list[str]) -> bytes:
    """RFC 9162, section 2.1.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + bytes.fromhex(leaves[0])).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + slow_root(leaves[:half]) + slow_root(leaves[half:])).digest()


def prove(leaves: list[str], seq: int) -> Proof:
    return Proof("l", seq, len(leaves), leaves[seq - 1], inclusion(leaves, seq))


def prove_growth(leaves: list[str], before: int) -> GrowthProof:
    return GrowthProof("l", before, len(leaves), growth(leaves, before))


def refused(proof: Proof | GrowthProof, *roots: str) -> bool:
    try:
        proof.verify(*roots)  # type: ignore[call-arg]
    except IntegrityError:
        return True
    return False


def test_the_root_is_that_of_the_standard() -> None:
    for count in range(70):
        assert root(rows(count)) == slow_root(rows(count)).hex()


def test_leaves_and_nodes_are_told_apart() -> None:
    """Without the first byte, a node could be passed off as a row."""
    two = rows(2)
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(row)).hexdigest() for row in two]
    forged = Proof("l", 1, 1, "".join(leaves)[:64], ())
    assert refused(forged, root(two))
    careless = hashlib.sha256(bytes.fromhex(leaves[0] + leaves[1])).hexdigest()
    assert careless != root(two)


def test_every_row_and_every_size_is_proved() -> None:
    for count in range(1, 34):
        leaves = rows(count)
        for seq in range(1, count + 1):
            prove(leaves, seq).verify(root(leaves))
            prove_growth(leaves, seq).verify(root(leaves[:seq]), root(leaves))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_altered_proof_of_a_row_does_not_verify(data) -> None:
    count = data.draw(st.integers(2, 80))
    leaves = rows(count)
    seq = data.draw(st.integers(1, count))
    true, top = prove(leaves, seq), root(leaves)
    other = data.draw(st.integers(1, count).filter(lambda n: n != seq))
    place = data.draw(st.integers(0, len(true.path) - 1))
    bad = rows(1, "bad")[0]
    twins = [
        replace(true, seq=other),
        replace(true, row=leaves[other - 1]),
        replace(true, row=bad),
        replace(true, path=(*true.path[:place], bad, *true.path[place + 1 :])),
        replace(true, path=true.path[:-1]),
        replace(true, path=(*true.path, bad)),
        replace(true, seq=0),
        replace(true, size=seq - 1),
        replace(true, row=true.row[:-1]),
    ]
    for twin in twins:
        assert refused(twin, top), twin
    assert refused(true, root([*leaves, bad]))
    assert refused(true, root(leaves[:-1]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_book_that_was_changed_cannot_prove_that_it_grew(data) -> None:
    count = data.draw(st.integers(2, 80))
    leaves = rows(count)
    before = data.draw(st.integers(1, count - 1))
    old, new, true = root(leaves[:before]), root(leaves), prove_growth(leaves, before)
    true.verify(old, new)
    edited = [*leaves]
    edited[data.draw(st.integers(0, before - 1))] = rows(1, "bad")[0]
    twin = prove_growth(edited, before)
    assert refused(twin, old, root(edited))
    assert refused(twin, root(edited[:before]), new)
    assert refused(true, new, old)
    assert refused(replace(true, path=true.path[:-1]), old, new)
    assert refused(replace(true, path=(*true.path, old)), old, new)
    assert refused(replace(true, before=count), old, new)
    assert refused(replace(true, before=0), old, new)
    assert refused(true, root(leaves[: before - 1]), new)


def test_a_ledger_proves_its_rows(where: str) -> None:
    ledger = Ledger(where, create=True)
    for _ in range(6):
        ledger.settle(ledger.reserve({}, NoEvent()).seq, receipt="r")
    early = ledger.root(5)
    for row in ledger.entries():
        proof = Proof.from_data(ledger.prove(row.seq).to_data())
        assert proof.row == row.hash
        proof.verify(ledger.root())
    GrowthProof.from_data(ledger.prove_growth(5).to_data()).verify(early, ledger.root())
    ledger.prove(3, size=5).verify(early)
    for wrong in (lambda: ledger.prove(0), lambda: ledger.prove(14), lambda: ledger.prove(6, size=5)):
        with pytest.raises(InvalidRequest, match="row to prove"):
            wrong()
    with pytest.raises(InvalidRequest, match="rows"):
        ledger.root(99)
    with pytest.raises(InvalidRequest, match="earlier size"):
        ledger.prove_growth(99)


@pytest.mark.parametrize("data", [{}, {"ledger": "", "seq": "1", "size": 1, "row": "", "path": []}])
def test_what_is_no_proof_is_said(data: dict) -> None:
    for kind in (Proof, GrowthProof):
        with pytest.raises(InvalidRequest, match="not a whole proof"):
            kind.from_data(data)


def test_nothing_verifies_against_a_root_that_is_none() -> None:
    """A proof of the wrong length leads nowhere, and nowhere is no root."""
    for bad in (Proof("l", 1, 1, "x", ()), Proof("l", 1, 9, "a" * 64, ())):
        assert refused(bad, "")
    assert refused(GrowthProof("l", 3, 3, ()), "x", "x")
