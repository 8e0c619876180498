"""Killed at random moments, a run never forgets a step; the careless twin does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")
if not hasattr(os, "fork"):
    pytest.skip(
        "this system has no fork, by which hundreds of processes to be killed are made in seconds",
        allow_module_level=True,
    )

HERE = Path(__file__).parent


def killed(root: Path, kills: int, seed: int, kind: str = "honest") -> dict[str, Any]:
    paths = [str(HERE.parent / "support"), *sys.path]
    result = subprocess.run(
        [sys.executable, HERE / "kill_worker.py", root, str(kills), str(seed), kind],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert "failed" not in found["ends"], result.stderr[-3000:]
    return found


def undercounted(found: dict[str, Any]) -> list[list[int]]:
    """Runs of which more noise was drawn than their settlement tells, or than was reserved."""
    return [
        run
        for run in found["runs"]
        if run[2] > (found["reserved"] if run[1] is None else min(run[1], found["reserved"]))
    ]


def check(found: dict[str, Any], kills: int) -> None:
    assert found["ends"].count("killed") == kills
    assert not undercounted(found)
    assert not found["strangers"]
    assert sum(run[1] is not None for run in found["runs"]) >= 2
    # Every reservation is charged whole, once, whether it came to its end or not.
    assert Fraction(found["spent"]) == len(found["runs"]) * Fraction(found["price"])
    assert found["claims"] >= 1


def test_some_kills_never_lose_a_step(tmp_path: Path) -> None:
    check(killed(tmp_path / "p", 8, 1), 8)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_two_hundred_kills_never_lose_a_step(tmp_path: Path) -> None:
    found = killed(tmp_path / "p", 200, 2)
    check(found, 200)
    assert found["claims"] >= 60


@pytest.mark.slow
def test_a_careless_twin_loses_steps(tmp_path: Path) -> None:
    assert undercounted(killed(tmp_path / "p", 25, 3, "careless"))
