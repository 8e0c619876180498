"""A process of its own for the race and kill tests.

worker.py race FOLDER BOOK ATTEMPTS WRITERS
worker.py blocks FOLDER BOOK ATTEMPTS SEED
worker.py release|careless|group FOLDER BOOK
worker.py cut|careless-cut FOLDER BOOK ROW
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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


BLOCKS = ("h000", "h001", "h002", "h003")


def blocks(folder: Path, attempts: int, seed: int) -> None:
    """Try to charge random sets of blocks, named in random order; print what was accepted of each."""
    dice, counts = random.Random(seed), dict.fromkeys(BLOCKS, 0)
    door = gate(folder)
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.005)
    for attempt in range(attempts):
        named = tuple(dice.sample(BLOCKS, dice.randint(1, 4)))
        try:
            with door.open(replace(plan("0.05"), blocks=named)) as permit:
                if attempt % 5 == 4:
                    raise KeyError  # taken back: nothing was drawn
                permit.entropy.bytes(1)
                permit.settle()
        except (BudgetSpent, KeyError):
            continue
        for block in named:
            counts[block] += 1
    print(json.dumps(counts))


def group(folder: Path) -> None:
    """Charge groups of blocks without end, telling of each; to be killed."""
    door, count = gate(folder), 0
    while True:
        count += 1
        with door.open(replace(plan("0.000001"), blocks=BLOCKS[: 2 + count % 3])) as permit:
            value = permit.entropy.bytes(8)
            (folder / "released" / f"{permit.reservation}-{value.hex()}").touch()
            permit.settle()


def cut(folder: Path, row: int, *, careless: bool = False) -> None:
    """Charge and end a group, and be killed before a row of it is written.

    Careless: the wrong twin, which charges its blocks one after the other.
    """
    door = gate(folder)
    assert door.ledger is not None
    put, left = type(door.ledger.book).put, [row]

    def counted(book: object, entry: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        put(book, entry)  # type: ignore[arg-type]

    type(door.ledger.book).put = counted  # type: ignore[assignment, method-assign]
    for named in [(block,) for block in BLOCKS] if careless else [BLOCKS]:
        with door.open(replace(plan("0.25"), blocks=named)) as permit:
            permit.settle()


if __name__ == "__main__":
    where, BOOK = Path(sys.argv[2]), sys.argv[3]
    if sys.argv[1] == "race":
        race(where, int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1] == "blocks":
        blocks(where, int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1].endswith("cut"):
        cut(where, int(sys.argv[4]), careless=sys.argv[1] == "careless-cut")
    else:
        {"release": release, "careless": careless, "group": group}[sys.argv[1]](where)
