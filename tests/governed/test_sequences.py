"""Whatever is done in whatever order: no budget comes back, nobody old gets a new one, no refusal tells.

Two neighbouring projects of real parts go through the same sequence; one lacks a person of the other, or has
somebody else in their place. A reference, which knows only who was in what, says what may have been spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase
from sequences import twins
from sequences.machine import Sequences, run


def check_reached(counts: Counter[str], sequences: int) -> None:
    """What never takes place proves nothing: every operation and every refusal must have been met."""
    print(f"{counts['sequences']} sequences, {counts['steps']} steps:", dict(sorted(counts.items())))
    assert counts["sequences"] >= sequences
    reached = ["add", "copy", "view", "blocks", "rename", "merge", "without", "retire", "consent", "release"]
    reached += ["release: BudgetSpent", "add: PolicyRefused"]
    if sequences >= 2000:  # what is rare may be absent from fewer; scripts below have each of these as well
        reached += ["erase", "reopen", "put back ledger.db", "put back catalogue", "put back keys"]
        reached += ["raise by 1 of 1", "raise by 2 of 2", "raise by 1 of 2: PolicyRefused"]
        reached += ["raise by 0 of 0: PolicyRefused", "release: PolicyRefused"]
    missing = [what for what in reached if not counts[what]]
    assert not missing, missing


def test_sequences(world: type, memory: Path, clock: type) -> None:
    check_reached(run(world, memory, clock, 120, steps=10), 120)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_sequences(world: type, memory: Path, clock: type) -> None:
    check_reached(run(world, memory, clock, 2000), 2000)


def old_ledger(one: Sequences) -> None:
    one.back_up()
    one.add_new("d4", ["bob"], False, "patients")
    one.put_back("ledger.db")


def old_catalogue(one: Sequences) -> None:
    one.back_up()
    one.add_new("d4", ["bob"], False, "patients")
    one.put_back("catalogue")


def old_keys(one: Sequences) -> None:
    one.back_up()
    one.erase("patients", "bob")
    one.put_back("keys")


def added_again(one: Sequences) -> None:
    one.time_passes(40)
    one.blocks(one.add_new("d1", ["bob"], False, "patients"), "d4", "last")


def sold_twice(one: Sequences) -> None:
    one.add_again("d4", 0, "staff")


def raised_by_one(one: Sequences) -> None:
    one.raise_budget("patients", "3", ["one", "one"])


def empty_block(one: Sequences) -> None:
    one.blocks("d3@1", "d4", "first")


SCRIPTS = {
    twins.remembers_nothing: old_ledger,
    twins.believes_old_files: old_catalogue,
    twins.brings_back: old_keys,
    twins.enrols_again: added_again,
    twins.sells_twice: sold_twice,
    twins.lets_one_owner_raise: raised_by_one,
    twins.views_no_empty_block: empty_block,
}


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("twin", SCRIPTS, ids=lambda twin: twin.__name__)
def test_a_short_sequence_finds_out_a_wrong_twin_and_no_other(
    twin: Callable, wrong: bool, world: type, memory: Path, clock: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Sequences(twin(world, monkeypatch) if wrong else world, memory, clock)
    one.begin(replaced=False, sealed=True)
    if wrong:
        with pytest.raises(AssertionError, match=dict(twins.TWINS)[twin]):
            SCRIPTS[twin](one)
    else:
        SCRIPTS[twin](one)
        one.teardown()


HUNTED = [pair for pair in twins.TWINS if pair[0] not in SCRIPTS]


@pytest.mark.slow
@pytest.mark.parametrize(("twin", "why"), HUNTED, ids=lambda item: getattr(item, "__name__", None))
def test_a_wrong_twin_is_found_out(
    twin: Callable,
    why: str,
    world: type,
    memory: Path,
    clock: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AssertionError, match=why):
        run(
            twin(world, monkeypatch),
            memory,
            clock,
            300,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # the smallest sequence is nobody's concern here
            report_multiple_bugs=False,
        )
