"""A process of its own for the race and kill tests.

worker.py race|release|careless FOLDER BOOK [ATTEMPTS WRITERS]
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sfumato.core.anchor import FileAnchor
from sfumato.core.errors import BudgetSpent
from sfumato.core.event import PureDP
from sfumato.core.gate import Gate, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy


def gate(folder: Path) -> Gate:
    ledger = Ledger(BOOK, FileAnchor(folder / "l.heads"))
    return Gate(Policy.parse('[project]\nname = "test"'), ledger)


def plan(epsilon: str) -> Plan:
    return Plan(
        action="redact",
        mechanism="test",
        guarantee="proven",
        statement="a test release",
        event=PureDP(epsilon),
        population="residents",
        share="all",
    )


def race(folder: Path, attempts: int, writers: int) -> None:
    """Try to release as often as asked once the file `go` appears; print accepted, refused."""
    with ThreadPoolExecutor(writers) as pool:
        counts = list(pool.map(lambda _: _race(folder, attempts), range(writers)))
    print(sum(accepted for accepted, _ in counts), sum(refused for _, refused in counts))


def _race(folder: Path, attempts: int) -> tuple[int, int]:
    door = gate(folder)
    (folder / f"ready-{os.getpid()}-{threading.get_ident()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.005)
    accepted = refused = 0
    for _ in range(attempts):
        try:
            with door.open(plan("0.01")) as permit:
                permit.entropy.bytes(1)
                permit.settle()
            accepted += 1
        except BudgetSpent:
            refused += 1
    return accepted, refused


def release(folder: Path) -> None:
    """Release without end, leaving every released value in a file of its own; to be killed."""
    door = gate(folder)
    while True:
        with door.open(plan("0.000001")) as permit:
            value = permit.entropy.bytes(8)
            (folder / "released" / f"{permit.reservation}-{value.hex()}").touch()
            permit.settle()


def careless(folder: Path) -> None:
    """The wrong twin: release first, charge afterwards."""
    door = gate(folder)
    while True:
        (folder / "released" / f"{door.ledger.head().seq + 1}-{os.getpid()}").touch()  # type: ignore[union-attr]
        time.sleep(0.5)
        with door.open(plan("0.000001")) as permit:
            permit.settle()


if __name__ == "__main__":
    where, BOOK = Path(sys.argv[2]), sys.argv[3]
    if sys.argv[1] == "race":
        race(where, int(sys.argv[4]), int(sys.argv[5]))
    else:
        {"release": release, "careless": careless}[sys.argv[1]](where)
