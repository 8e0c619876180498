"""Taking up a release that was interrupted: by one process, with the key, under the same plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.core import claims
from sfumato.core.errors import IntegrityError, InvalidRequest, LedgerTampered, PolicyRefused
from sfumato.core.event import PureDP, Repeated
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.core.project import Project
from sfumato.core.verify import verify

KEY, OTHER = bytes(range(32)), bytes(32)
POLICY = """
[project]
name = "test"
[populations.residents]
unit = "person"
epsilon = 1
delta = 1e-6
"""


def plan(**changes: object) -> Plan:
    values: dict = {
        "action": "train",
        "mechanism": "test",
        "guarantee": "proven",
        "statement": "s",
        "event": Repeated(PureDP("0.01"), 10),
        "population": "residents",
        "share": "all",
    }
    return Plan(**(values | changes))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    Project.init(tmp_path / "p").ledger.close()
    (tmp_path / "p" / "sfumato.toml").write_text(POLICY)
    return Project(tmp_path / "p")


def open_run(project: Project, key: bytes = KEY) -> Permit:
    permit = project.gate().open(plan(), key=key)
    permit.entropy.bytes(1)
    return permit


def seq(permit: Permit) -> int:
    assert permit.reservation is not None
    return permit.reservation


def test_the_newest_claim_alone_goes_on_and_nothing_is_charged_again(project: Project) -> None:
    first = open_run(project)
    spent = project.ledger.balances()
    second = project.gate().resume(seq(first), plan(), key=KEY, steps=3)
    for use in (lambda it: it.entropy, lambda it: it.releasing(), lambda it: it.settle(), Permit.check):
        with pytest.raises(PolicyRefused, match="taken up by another"):
            use(first)
    second.entropy.bytes(1)
    third = project.gate().resume(seq(first), plan(), key=KEY, steps=3)
    with pytest.raises(PolicyRefused, match="claim 2; this one has 1"):
        second.entropy  # noqa: B018
    assert project.ledger.balances() == spent
    receipt = third.settle(event=Repeated(PureDP("0.01"), 4))
    receipt.verify_ledger(project.ledger)
    assert float(project.ledger.balances()[0].spent_epsilon) == 0.04
    assert verify(project.ledger).unfinished == ()
    with pytest.raises(InvalidRequest, match="already ended"):
        project.gate().resume(seq(first), plan(), key=KEY, steps=3)
    with pytest.raises(PolicyRefused, match="ended by row"):
        second.check()


def test_without_the_check_two_processes_would_draw(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_run(project)
    project.gate().resume(seq(first), plan(), key=KEY, steps=0)
    monkeypatch.setattr(claims, "check", lambda *_: None)
    assert first.entropy.bytes(4)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda gate, n: gate.resume(n, plan(), key=OTHER, steps=0), PolicyRefused, "key"),
        (lambda gate, n: gate.resume(n, plan(), key=b"short", steps=0), InvalidRequest, "32 bytes"),
        (lambda gate, n: gate.resume(n, plan(mechanism="x"), key=KEY, steps=0), PolicyRefused, "settings"),
        (lambda gate, n: gate.resume(n + 7, plan(), key=KEY, steps=0), InvalidRequest, "not a reservation"),
        (lambda gate, n: gate.resume(1, plan(), key=KEY, steps=0), InvalidRequest, "not a reservation"),
        (lambda gate, n: Gate().resume(1, plan(), key=KEY, steps=0), PolicyRefused, "project"),
    ],
)
def test_what_cannot_be_taken_up_is_refused(
    project: Project, wrong: Callable[[Gate, int], object], error: type[Exception], says: str
) -> None:
    first = open_run(project)
    with pytest.raises(error, match=says):
        wrong(project.gate(), seq(first))
    first.entropy.bytes(1)  # it is still ours


def test_a_release_without_a_key_cannot_be_taken_up(project: Project) -> None:
    permit = project.gate().open(plan())
    with pytest.raises(InvalidRequest, match="not opened as one"):
        project.gate().resume(seq(permit), plan(), key=KEY, steps=0)


def test_an_older_journal_is_refused(project: Project) -> None:
    first = open_run(project)
    project.gate().resume(seq(first), plan(), key=KEY, steps=5)
    with pytest.raises(IntegrityError, match="counts 4 steps"):
        project.gate().resume(seq(first), plan(), key=KEY, steps=4)


def test_a_run_that_was_taken_up_is_never_taken_back(project: Project) -> None:
    first = project.gate().open(plan(), key=KEY)
    second = project.gate().resume(seq(first), plan(), key=KEY, steps=0)
    with pytest.raises(RuntimeError), first:
        raise RuntimeError
    second.check()
    with pytest.raises(RuntimeError), second:  # it drew nothing either, and yet nobody can be sure
        raise RuntimeError
    assert float(project.ledger.balances()[0].spent_epsilon) == 0.1
    assert "void" not in {row.kind for row in project.ledger.entries()}


def test_the_policy_of_today_is_asked(project: Project) -> None:
    first = open_run(project)
    text = POLICY + '[purposes.other]\nactions = ["redact"]\n'
    (project.root / "sfumato.toml").write_text(text)
    with pytest.raises(PolicyRefused):
        Project(project.root).gate().resume(seq(first), plan(), key=KEY, steps=0)


def test_the_key_is_not_in_the_book(project: Project) -> None:
    first = open_run(project)
    row = project.ledger.book.get(seq(first))
    assert row is not None
    assert row.body["plan"]["resumable"] == claims.lock_of(KEY)
    assert KEY.hex() not in str(row.body)


@pytest.mark.parametrize(
    ("about", "body"),
    [
        ("1", {"number": 1, "steps": 0}),
        ("x", {"number": 1, "steps": 0}),
        ("RUN", {"number": 2, "steps": 0}),
        ("RUN", {"number": 1, "steps": "0"}),
        ("RUN", {"number": 1, "steps": -1}),
        ("RUN", {"number": 1}),
    ],
)
def test_verify_names_a_forged_claim(about: str, body: dict[str, object]) -> None:
    ledger = Ledger(":memory:")
    ledger.open_population("residents", epsilon=1, delta="1e-6", unit="person")
    ledger.open_share("residents", "all", kind="filter", epsilon=1, delta="1e-6")
    permit = Gate(Policy.parse(POLICY), ledger).open(plan(), key=KEY)
    verify(ledger)
    with ledger.book.writing():
        ledger.book.append(
            "claim", about.replace("RUN", str(seq(permit))), None, {"at": ledger.time(), **body}
        )
    with pytest.raises(LedgerTampered, match="claim"):
        verify(ledger)
