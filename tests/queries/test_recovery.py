"""Killed at random moments, no answer is without its charge; asked at once, no budget is overspent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install sfumato[queries]")
pytest.importorskip("sqlglot", reason="needs sqlglot: pip install sfumato[queries]")
if not hasattr(os, "fork"):
    pytest.skip(
        "this system has no fork, by which processes to be killed are made in no time",
        allow_module_level=True,
    )

HERE = Path(__file__).parent
PRICE = Fraction(1, 10)


def worker(root: Path, first: int, second: int, kind: str) -> dict[str, Any]:
    paths = [str(HERE.parent / "support"), *sys.path]
    result = subprocess.run(
        [sys.executable, HERE / "kill_worker.py", root, str(first), str(second), kind],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert kind == "careless" or "failed" not in found["ends"], result.stderr[-3000:]
    return found


def unpaid(found: dict[str, Any]) -> list[Any]:
    """Return the draws of noise that no standing charge is for."""
    return [seq for seq in found["before"]["drew"] if seq not in found["before"]["paid"]]


def check(found: dict[str, Any], kills: int) -> None:
    before, after = found["before"], found["after"]
    assert found["ends"].count("killed") == kills
    assert not unpaid(found)
    assert len(before["drew"]) == len(
        set(before["drew"])
    )  # one draw for each charge: an answer is never drawn twice
    assert set(before["kept"]) <= set(before["paid"])
    assert Fraction(before["spent"]) == len(before["paid"]) * PRICE
    # What was kept comes back at no cost; what was not is charged once more, and kept.
    assert len(after["kept"]) == found["questions"]
    assert len(after["paid"]) == len(before["paid"]) + found["questions"] - len(before["kept"])
    # Whoever was killed with an answer kept has it settled by now: open are only those who had none.
    assert not set(after["open"]) & set(after["kept"])


def test_two_dozen_kills_never_give_an_answer_away(tmp_path: Path) -> None:
    check(worker(tmp_path / "p", 24, 1, "honest"), 24)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_two_hundred_kills_never_give_an_answer_away(tmp_path: Path) -> None:
    found = worker(tmp_path / "p", 200, 2, "honest")
    check(found, 200)
    # Kills fell everywhere: before noise, after it, and between an answer and its settlement.
    assert len(found["before"]["paid"]) > len(found["before"]["kept"])


def test_a_careless_twin_gives_answers_away(tmp_path: Path) -> None:
    assert unpaid(worker(tmp_path / "p", 12, 3, "careless"))


def test_eight_analysts_never_overspend(tmp_path: Path) -> None:
    found = worker(tmp_path / "p", 8, 3, "together")
    assert found["ends"] == ["done"] * 8
    assert Fraction(found["spent"]) == Fraction(6, 5)
    assert len(found["paid"]) == len(found["kept"]) == 12  # the one that all asked was charged once
    assert found["answered"] == 11
