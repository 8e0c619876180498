"""Asks in child processes and kills them at random moments; prints what was drawn and what was paid.

kill_worker.py ROOT KILLS SEED honest|careless
kill_worker.py ROOT ANALYSTS QUESTIONS together

The parent imports all once and forks. Every draw of noise leaves a line in a file before it is made, which no
kill takes back. The careless twin charges when it settles.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from query_people import People, person

from sfumato.core.errors import BudgetSpent
from sfumato.core.gate import Gate, Permit
from sfumato.core.project import Project
from sfumato.core.verify import verify
from sfumato.mechanisms.discrete import Noise
from sfumato.queries import run
from sfumato.queries.api import Questions
from sfumato.queries.bounded import Bounded, Cells
from sfumato.queries.store import Store

BUDGET = "epsilon = 20\n[populations.people.shares.all]\nkind = 'sum'\nepsilon = 20\n"
EPSILON = Fraction(1, 10)


class Nobody:
    """An engine that finds no rows: what is asked here is who pays."""

    def bounded(self, asked: Bounded) -> Cells:
        return Cells(tuple(np.zeros(asked.cells, np.int64) for _ in asked.measures))

    def close(self) -> None:
        pass


def sql(number: int) -> str:
    return f"SELECT place, COUNT(*) AS n{number} FROM visits GROUP BY place"


def ask(root: Path, number: int) -> Any:
    """Answer one question in a project opened afresh."""
    questions = Questions(Project(root))
    planned = questions.plan(sql(number), epsilon=EPSILON)
    return run.run_query(
        planned, questions.gate, Store(root / ".sfumato" / "answers"), lambda tables: Nobody()
    )


def slowly(owner: Any, name: str) -> None:
    """Let a moment pass after a step, so that many a kill falls there."""
    honest = getattr(owner, name)

    def slow(*given: Any, **named: Any) -> Any:
        found = honest(*given, **named)
        time.sleep(0.01)
        return found

    setattr(owner, name, slow)


def watched(root: Path, careless: bool) -> None:
    """Write down every draw before it is made; let kills fall between all steps."""
    honest = Noise._add
    log = os.open(root / "draws", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def logged(noise: Noise, *given: Any) -> Any:
        os.write(log, f"{noise._permit.reservation}\n".encode())
        return honest(noise, *given)

    Noise._add = logged  # type: ignore[method-assign]
    for owner, name in (
        (run, "_exact"),
        (run, "_released"),
        (Store, "write"),
        (Permit, "settle"),
        (Gate, "open"),
    ):
        slowly(owner, name)
    if careless:
        opening, settled = Gate.open, run._settled
        Gate.open = lambda gate, plan, key=b"": Permit(gate, plan, None)  # type: ignore[assignment,method-assign]

        def late(answer: Any, gate: Any, permit: Any, *rest: Any) -> Any:
            return settled(answer, gate, opening(gate, permit.plan), *rest)

        run._settled = late


def child(work: Callable[[], Any], delay: float | None = None) -> int:
    """Run work in a child; kill it after a delay, if one is given. Return its id, where nobody waits."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
    if delay is not None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    return pid


def ended(pid: int) -> str:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "done", -signal.SIGKILL: "killed"}.get(status, "failed")


def report(root: Path) -> dict[str, Any]:
    """Return who drew, who paid, and what is kept."""
    project = Project(root)
    verify(project.ledger)
    rows = {row.seq: row for row in project.ledger.entries()}
    ends = {seq: project.ledger.book.end_of(seq) for seq, row in rows.items() if row.kind == "reserve"}
    path = root / "draws"
    kept = [
        json.loads(one.read_text())["body"] for one in (root / ".sfumato" / "answers").glob("[0-9a-f]*.json")
    ]
    found = {
        "paid": [seq for seq, end in ends.items() if end is None or end.kind != "void"],
        "open": [seq for seq, end in ends.items() if end is None],
        "drew": [None if line == "None" else int(line) for line in path.read_text().split()]
        if path.exists()
        else [],
        "kept": [one["reservation"] for one in kept],
        "spent": str(sum(one.spent_epsilon for one in project.ledger.balances())),
    }
    project.close()
    return found


def killed(root: Path, kills: int, seed: int, careless: bool) -> dict[str, Any]:
    """Kill so many times; then ask every question again."""
    chance, ends, number = random.Random(seed), [], 0
    start = time.monotonic()
    ends.append(ended(child(lambda: ask(root, 0))))
    span = (time.monotonic() - start) * 1.2
    while ends.count("killed") < kills and "failed" not in ends:
        number += ends[-1] == "done"  # the same question again until it is answered
        ends.append(ended(child(partial(ask, root, number), chance.uniform(0, span))))
    before = report(root)
    again = []
    for each in range(number + 1):
        ends.append(ended(child(partial(ask, root, each))))
        after = report(root)
        again.append(len(after["paid"]))
    return {"before": before, "after": after, "again": again, "ends": ends, "questions": number + 1}


def together(root: Path, analysts: int, count: int) -> dict[str, Any]:
    """Let analysts ask at once, of a budget for 12 questions: a question that all ask, then their own."""

    def work(who: int) -> None:
        answered = 0
        for number in [1000, *(100 * who + place for place in range(count))]:
            try:
                ask(root, number)
                answered += number != 1000
            except BudgetSpent:
                pass
        (root / f"answered-{who}").write_text(str(answered))

    pids = [child(partial(work, who)) for who in range(analysts)]
    ends = [ended(pid) for pid in pids]
    answered = sum(int(path.read_text()) for path in root.glob("answered-*"))
    return report(root) | {"ends": ends, "answered": answered}


def main() -> None:
    root, first, second, kind = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    budget = BUDGET if kind != "together" else BUDGET.replace("20", "1.2")
    people = People(root, [person(who) for who in range(9)], budget)
    people.questions.plan(sql(0), epsilon=EPSILON)
    people.project.close()
    if kind == "together":
        print(json.dumps(together(root, first, second)))
        return
    watched(root, kind == "careless")
    print(json.dumps(killed(root, first, second, kind == "careless")))


if __name__ == "__main__":
    main()
