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
from sequences.machine import run
from sequences.twins import TWINS


def check_reached(counts: Counter[str], sequences: int) -> None:
    """What never takes place proves nothing: every operation and every refusal must have been met."""
    print(f"{counts['sequences']} sequences, {counts['steps']} steps:", dict(sorted(counts.items())))
    assert counts["sequences"] >= sequences
    reached = ("add", "copy", "view", "blocks", "rename", "merge", "without", "retire", "consent", "erase")
    reached += ("release", "reopen", "put back ledger.db", "put back catalogue", "put back keys")
    reached += ("raise by 1 of 1", "raise by 2 of 2", "raise by 1 of 2: PolicyRefused")
    reached += ("raise by 0 of 0: PolicyRefused", "release: BudgetSpent", "release: PolicyRefused")
    reached += ("add: PolicyRefused",)
    missing = [what for what in reached if not counts[what]]
    assert not missing, missing


def test_sequences(world: type, memory: Path, clock: type) -> None:
    check_reached(run(world, memory, clock, 200, steps=14), 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_sequences(world: type, memory: Path, clock: type) -> None:
    check_reached(run(world, memory, clock, 2000), 2000)


@pytest.mark.slow
@pytest.mark.parametrize(("twin", "why"), TWINS, ids=lambda item: getattr(item, "__name__", None))
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
