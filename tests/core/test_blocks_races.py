"""Groups of blocks under races and kills: no block is overspent, nobody waits for ever, all or nothing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from sfumato.core.anchor import FileAnchor
from sfumato.core.ledger import Ledger
from sfumato.core.verify import verify

WORKER = Path(__file__).with_name("worker.py")
BLOCKS = ("h000", "h001", "h002", "h003")


def prepare(folder: Path, place: str) -> None:
    ledger = Ledger(place, FileAnchor(folder / "l.heads"), create=True)
    ledger.open_population("residents", epsilon=1, delta=0, unit="person", blocks="hash 4")
    ledger.open_share("residents", "all", kind="sum", epsilon=1, delta=0)
    ledger.close()
    (folder / "released").mkdir()


def worker(*command: object) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, WORKER, *map(str, command)], stdout=pipe, stderr=pipe)


def die(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that kills itself."""
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def spent(ledger: Ledger) -> dict[str, Fraction]:
    return {one.population.partition("#")[2]: one.spent_epsilon for one in ledger.balances()}


@pytest.mark.timeout(150)
def test_eight_processes_charge_overlapping_blocks(place: str, tmp_path: Path) -> None:
    """Room for twenty in each block; sets that overlap, in any order, must not wait for each other."""
    prepare(tmp_path, place)
    workers = [worker("blocks", tmp_path, place, 20, seed) for seed in range(8)]
    while len(list(tmp_path.glob("ready-*"))) < 8:
        assert all(one.poll() is None for one in workers)
        time.sleep(0.02)
    (tmp_path / "go").touch()
    outputs = [one.communicate(timeout=100) for one in workers]
    assert [error for _, error in outputs if error] == []
    accepted = sum((Counter(json.loads(output)) for output, _ in outputs), Counter())
    ledger = Ledger(place, FileAnchor(tmp_path / "l.heads"))
    assert not verify(ledger).unfinished
    assert spent(ledger) == {block: Fraction(accepted[block], 20) for block in BLOCKS}
    assert max(accepted.values()) == 20  # the budget was reached, and not passed


def left_behind(folder: Path, place: str) -> list[int]:
    """Verify the book; return for each release how many of its accounts it charged."""
    ledger = Ledger(place, FileAnchor(folder / "l.heads"))
    verify(ledger)
    rows = [row for row in ledger.entries() if row.kind == "reserve"]
    sizes = Counter(row.body.get("of", row.seq) for row in rows)
    assert all(sizes[row.seq] == 1 + len(row.body.get("with", ())) for row in rows if "of" not in row.body)
    return list(sizes.values())


# A group of four writes four rows that open the accounts, four that charge them, and four that end it.
@pytest.mark.parametrize("row", [1, 3, 6, 8, 11])
def test_a_kill_before_any_row_of_a_group_leaves_all_or_nothing(place: str, tmp_path: Path, row: int) -> None:
    prepare(tmp_path, place)
    die(worker("cut", tmp_path, place, row))
    assert left_behind(tmp_path, place) == ([] if row <= 8 else [4])
    ledger = Ledger(place, FileAnchor(tmp_path / "l.heads"))
    assert set(spent(ledger).values()) == {Fraction(0 if row <= 8 else 1, 4)}
    assert len(verify(ledger).unfinished) == (row > 8)


def test_the_harness_finds_a_group_that_is_charged_piece_by_piece(place: str, tmp_path: Path) -> None:
    prepare(tmp_path, place)
    die(worker("careless-cut", tmp_path, place, 6))
    assert left_behind(tmp_path, place) == [1, 1]  # two of four


def _kills(folder: Path, place: str, count: int) -> int:
    """Kill a process that charges groups at random moments; return how many releases it told of."""
    prepare(folder, place)
    dice = random.Random(11)
    for _ in range(count):
        seen, process = len(list((folder / "released").iterdir())), worker("group", folder, place)
        while len(list((folder / "released").iterdir())) == seen and process.poll() is None:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.06)
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[1] == b""
    assert set(left_behind(folder, place)) <= {2, 3, 4}
    ledger = Ledger(place, FileAnchor(folder / "l.heads"))
    charged = {row.seq for row in ledger.entries() if row.kind == "reserve" and "of" not in row.body}
    told = [int(path.name.split("-")[0]) for path in (folder / "released").iterdir()]
    assert set(told) <= charged
    assert len(set(told)) == len(told)
    return len(told)


def test_kills_at_random_moments_leave_whole_groups(place: str, tmp_path: Path) -> None:
    assert _kills(tmp_path, place, 4) >= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_and_fifty_kills_leave_whole_groups(place: str, tmp_path: Path) -> None:
    assert _kills(tmp_path, place, 150) >= 150
