"""Trains in child processes and kills them at random moments; prints what was counted and what was drawn.

kill_worker.py ROOT KILLS SEED honest|careless

The parent imports PyTorch once and forks, so that two hundred kills take no minutes. Every draw of noise
leaves a byte in a file before it is made, which no kill takes back. The careless twin counts a step after
its noise.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from private_runs import ASKED, LOSS, data, model, project_at, sgd

import sfumato.training as training
from sfumato.core.verify import verify
from sfumato.mechanisms.gaussian import GaussianNoise
from sfumato.training.journal import Journal

DRAW = GaussianNoise.add_to
SETTINGS = ASKED | {"noise_multiplier": 40, "steps": 25, "delta": "1e-7"}


def train(root: Path) -> None:
    """Take up the unfinished run, or begin one; release it at the end."""
    project = project_at(root)
    net = model()
    with project.training(**SETTINGS, resume=True) as run:
        log = os.open(root / f"draws-{run.permit.reservation}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def logged(noise: GaussianNoise, *arguments: object) -> None:
            os.write(log, b".")
            DRAW(noise, *arguments)  # type: ignore[arg-type]
            time.sleep(0.01)  # so that many a kill falls between noise and the next step

        GaussianNoise.add_to = logged  # type: ignore[method-assign]
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        for batch in private.batches(data()):
            private.step(batch)
            if batch.number % 4 == 0 and sys.argv[4] == "honest":
                private.save()
        run.release(net, root / f"model-{run.permit.reservation}.safetensors")


def careless() -> None:
    """Count a step when the next one begins: what a journal written after the noise would know."""
    honest, waiting = Journal.begin, []

    def late(journal: Journal, count: int) -> None:
        for earlier in waiting:
            honest(journal, earlier)
        waiting[:] = [count]

    Journal.begin = late  # type: ignore[method-assign]


def one(root: Path, delay: float | None) -> str:
    """Run a child, killed after a delay; return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            train(root)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "done", -signal.SIGKILL: "killed"}.get(status, "failed")


def report(root: Path) -> dict[str, object]:
    """Return for each reservation the steps that its settlement tells, and the noise that was drawn."""
    project = project_at(root)
    rows = {row.seq: row for row in project.ledger.entries()}
    drawn = {int(path.name.split("-")[1]): path.stat().st_size for path in root.glob("draws-*")}
    told: dict[int, int | None] = {}
    for row in rows.values():
        if row.kind == "reserve":
            end = project.ledger.book.end_of(row.seq)
            if end is not None and end.kind == "settle":
                event = end.body.get("event", row.body["event"])
                told[row.seq] = event["times"]
            elif end is None:
                told[row.seq] = None
    verify(project.ledger)
    spent = next(one.spent_epsilon for one in project.ledger.balances() if one.share == "train")
    price = training.plan_run(training.TrainingSettings(**SETTINGS), project.policy).price
    return {
        "runs": [[seq, steps, drawn.pop(seq, 0)] for seq, steps in told.items()],
        "strangers": drawn,
        "spent": str(spent),
        "price": str(price),
        "reserved": SETTINGS["steps"],
        "claims": sum(row.kind == "claim" for row in rows.values()),
    }


def main() -> None:
    """Kill so many times, then let the last run come to its end."""
    root, kills, seed, kind = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    chance = random.Random(seed)
    train(root)  # what is imported and worked out here, children inherit
    if kind == "careless":
        careless()
    ends: list[str] = []
    start = time.monotonic()
    ends.append(one(root, None))
    span = (time.monotonic() - start) * 1.1
    while ends.count("killed") < kills and "failed" not in ends:
        ends.append(one(root, chance.uniform(0, span)))
    ends.append(one(root, None))
    print(json.dumps(report(root) | {"ends": ends}))


if __name__ == "__main__":
    main()
