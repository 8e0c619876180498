"""The gate: nothing leaves without a decision, a charge before it, and a receipt."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sfumato.core.anchor import FileAnchor
from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import (
    BudgetSpent,
    InvalidRequest,
    LedgerRolledBack,
    LedgerTampered,
    PolicyError,
    PolicyRefused,
    ReceiptInvalid,
)
from sfumato.core.event import Gaussian, NoEvent, PureDP, Repeated
from sfumato.core.gate import Plan
from sfumato.core.ledger import Ledger
from sfumato.core.move import move, with_url
from sfumato.core.project import Project, _memory, gate_here
from sfumato.core.receipt import Output, Receipt
from sfumato.core.verify import verify

POLICY = """
[project]
name = "test"
[purposes.traffic]
[purposes.archive]
actions = []
[populations.residents]
unit = "person"
epsilon = 1
delta = 1e-6
"""
WORKER = Path(__file__).with_name("worker.py")


def plan(**changes: object) -> Plan:
    values: dict = {
        "action": "redact",
        "mechanism": "test",
        "guarantee": "proven",
        "statement": "a test release",
        "purpose": "traffic",
        "event": PureDP("0.25"),
        "population": "residents",
        "share": "all",
    }
    return Plan(**(values | changes))


def heuristic(**changes: object) -> Plan:
    return plan(guarantee="heuristic", event=NoEvent(), population="", share="", **changes)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    Project.init(tmp_path / "p").ledger.close()
    (tmp_path / "p" / "sfumato.toml").write_text(POLICY)
    return Project(tmp_path / "p")


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(request: pytest.FixtureRequest, project: Project) -> Project:
    """A project with its ledger in either place."""
    if request.param == "sqlite":
        return project
    done = move(project.book(), request.getfixturevalue("postgres").url())
    (project.root / "sfumato.toml").write_text(with_url(POLICY, done.to) or "")
    return Project(project.root)


def spent(project: Project) -> float:
    return float(project.ledger.balances()[0].spent_epsilon)


def test_a_release_is_charged_before_noise_and_leaves_a_receipt(anywhere: Project, tmp_path: Path) -> None:
    output = tmp_path / "out.bin"
    with anywhere.gate().open(plan()) as permit:
        assert spent(anywhere) == 0.25
        output.write_bytes(permit.entropy.bytes(16))
        receipt = permit.settle([Output.of(output)], facts={"answers": 1})
    receipt.write(tmp_path / "receipt.json")
    again = Receipt.read(tmp_path / "receipt.json")
    again.verify_ledger(anywhere.ledger)
    assert again.verify_files([output, tmp_path / "receipt.json"]) == (tmp_path / "receipt.json",)
    assert again.guarantee == "proven"
    assert again.recorded
    assert list(anywhere.receipts.glob("*.json"))


def test_an_exception_before_any_noise_gives_the_charge_back(anywhere: Project) -> None:
    with pytest.raises(RuntimeError), anywhere.gate().open(plan()):
        raise RuntimeError
    assert spent(anywhere) == 0
    assert [row.kind for row in anywhere.ledger.entries()][-2:] == ["reserve", "void"]


@pytest.mark.parametrize("use", [lambda permit: permit.entropy, lambda permit: permit.releasing()])
def test_after_noise_or_release_an_exception_leaves_the_charge(anywhere: Project, use) -> None:
    def interrupted() -> None:
        with anywhere.gate().open(plan()) as permit:
            use(permit)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert spent(anywhere) == 0.25
    assert verify(anywhere.ledger).unfinished


def test_leaving_without_settling_leaves_the_charge(anywhere: Project) -> None:
    with anywhere.gate().open(plan()):
        pass
    assert spent(anywhere) == 0.25


def test_a_permit_ends_once(anywhere: Project) -> None:
    with anywhere.gate().open(plan()) as permit:
        permit.settle()
        for use in (permit.settle, permit.releasing, lambda: permit.entropy):
            with pytest.raises(InvalidRequest, match="has ended"):
                use()


def test_an_early_stop_settles_down(anywhere: Project) -> None:
    with anywhere.gate().open(plan(event=Repeated(Gaussian(50), 100))) as permit:
        permit.entropy.bytes(1)
        high = spent(anywhere)
        receipt = permit.settle(event=Repeated(Gaussian(50), 3))
    assert spent(anywhere) < high
    assert receipt.body["settled_event"]["times"] == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"purpose": "trafic"}, "Did you mean 'traffic'"),
        ({"purpose": "archive"}, "does not allow the action 'redact'"),
        ({}, None),
    ],
)
def test_purposes_limit_what_passes(anywhere: Project, change: dict, says: str | None) -> None:
    if says is None:
        anywhere.gate().check(plan())
        return
    head = anywhere.ledger.head()
    with pytest.raises(PolicyRefused, match=says) as caught:
        anywhere.gate().open(plan(**change))
    assert caught.value.exit_code == 3
    added = list(anywhere.ledger.entries(after=head.seq))
    assert [row.kind for row in added] == ["refusal"]
    assert "trafic" not in json.dumps(added[0].body)  # what was typed may be about a person
    assert spent(anywhere) == 0


def test_a_spent_budget_refuses_and_records_nothing(anywhere: Project) -> None:
    head = anywhere.ledger.head()
    with pytest.raises(BudgetSpent, match="Largest that would fit: epsilon"):
        anywhere.gate().open(plan(event=PureDP(20)))
    assert anywhere.ledger.head() == head


def test_without_a_project_filters_pass_unrecorded_and_budgets_do_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    gate = gate_here()
    with gate.open(heuristic()) as permit:
        receipt = permit.settle()
    assert not receipt.recorded
    with pytest.raises(PolicyRefused, match="sfumato init"):
        gate.open(plan())
    with pytest.raises(ReceiptInvalid, match="without a project"):
        receipt.verify_ledger(Ledger(":memory:"))


def test_proven_needs_an_event_and_an_event_needs_proven() -> None:
    for wrong in ({"event": NoEvent()}, {"guarantee": "heuristic"}, {"guarantee": "anonymous"}):
        with pytest.raises(InvalidRequest):
            plan(**wrong)


def test_a_seeded_source_is_stamped(anywhere: Project) -> None:
    with anywhere.gate(entropy=SeededEntropy(1)).open(plan()) as permit:
        permit.entropy.bytes(1)
        assert "not_private" in permit.settle().body
    with anywhere.gate().open(plan()) as permit:
        permit.entropy.bytes(1)
        assert "not_private" not in permit.settle().body


def test_the_project_is_found_upwards_like_git(project: Project) -> None:
    deep = project.root / "a" / "b"
    deep.mkdir(parents=True)
    found = Project.find(deep)
    assert found is not None
    assert found.root == project.root.resolve()
    with pytest.raises(InvalidRequest, match="already"):
        Project.init(project.root)


def test_a_new_book_in_place_of_the_old_is_refused(project: Project) -> None:
    """Deleting the book and starting afresh would be a fresh budget for the same people."""
    project.ledger.close()
    (project.root / ".sfumato" / "ledger.db").unlink()
    Ledger(project.root / ".sfumato" / "ledger.db", create=True).close()
    with pytest.raises(LedgerTampered, match="in place of the old"):
        Project(project.root).gate()


def test_starting_anew_where_a_book_was_is_said_aloud(project: Project) -> None:
    project.ledger.close()
    shutil.rmtree(project.root)
    with pytest.raises(InvalidRequest, match="--new-ledger"):
        Project.init(project.root)
    assert not project.root.exists()
    assert Project.init(project.root, forget=True).ledger.id != project.ledger.id


def test_a_lost_book_is_not_quietly_replaced(project: Project) -> None:
    project.ledger.close()
    (project.root / ".sfumato" / "ledger.db").unlink()
    with pytest.raises(Exception, match="no ledger at"):
        Project(project.root).gate()


def test_a_kept_receipt_guards_the_book_where_the_anchor_is_lost(project: Project, tmp_path: Path) -> None:
    old = (project.root / ".sfumato" / "ledger.db").read_bytes()
    with project.gate().open(plan()) as permit:
        permit.settle()
    project.ledger.close()
    (project.root / ".sfumato" / "ledger.db").write_bytes(old)
    anchor = Project(project.root).anchor(str(project.root / ".sfumato" / "ledger.db"))
    anchor.path.unlink()
    _memory(project.root).unlink()  # that there was an anchor would show it too
    with pytest.raises(LedgerRolledBack):
        Project(project.root).gate()


def test_a_torn_or_stray_file_among_the_receipts_stops_nobody(project: Project) -> None:
    with project.gate().open(plan()) as permit:
        permit.settle()
    for name, text in ((".sfumato-x1.json", '{"format"'), ("9999.json", "{"), ("notes.json", "[]")):
        (project.receipts / name).write_text(text)
    Receipt({"guarantee": {"type": "heuristic"}, "outputs": []}).write(
        project.receipts / "999999999999-0.json"
    )
    assert project.gate()
    old = (project.root / ".sfumato" / "ledger.db").read_bytes()
    with project.gate().open(plan()) as permit:
        permit.settle()
    project.ledger.close()
    (project.root / ".sfumato" / "ledger.db").write_bytes(old)
    where = str(project.root / ".sfumato" / "ledger.db")
    Project(project.root).anchor(where).path.unlink()
    _memory(project.root).unlink()
    with pytest.raises(LedgerRolledBack):
        Project(project.root).gate()


def test_a_forged_receipt_does_not_poison_the_book(project: Project, receipt: Receipt) -> None:
    forged = json.loads(json.dumps(receipt.to_data()))
    for row in forged["ledger_rows"]:
        row["seq"] += 500
    with pytest.raises(ReceiptInvalid):
        Receipt.from_data(forged)
    with project.gate().open(plan()) as permit:
        permit.settle()


def test_noise_comes_through_a_permit_only(project: Project) -> None:
    assert not hasattr(project.gate(), "entropy")


def test_a_ledger_without_its_policy_and_a_project_in_a_project_are_refused(project: Project) -> None:
    with pytest.raises(InvalidRequest, match="second budget"):
        Project.init(project.root / "deeper")
    (project.root / "sfumato.toml").unlink()
    with pytest.raises(PolicyError, match="Put the policy back"):
        Project.find(project.root)


def test_a_failed_settlement_leaves_the_permit_usable_and_the_charge_standing(project: Project) -> None:
    with project.gate().open(plan(event=Repeated(Gaussian(50), 10))) as permit:
        with pytest.raises(InvalidRequest, match="never to more"):
            permit.settle(event=Repeated(Gaussian(50), 11))
        assert permit.settle().recorded


def test_shares_stay_as_opened_and_a_raise_needs_a_reason(project: Project) -> None:
    project.ledger.close()
    path = project.root / "sfumato.toml"
    path.write_text(POLICY.replace("epsilon = 1", "epsilon = 2"))
    with pytest.raises(PolicyRefused, match="ledger raise"):
        Project(project.root).gate()
    book = Project(project.root).book()
    book.open_population("residents", epsilon=2, delta="1e-6", unit="person", reason="board decision")
    book.close()
    assert [balance.share for balance in Project(project.root).ledger.balances()] == ["all"]


# Receipts


@pytest.fixture
def receipt(project: Project) -> Receipt:
    with project.gate().open(plan()) as permit:
        permit.entropy.bytes(1)
        return permit.settle(facts={"files": 3})


def test_an_edited_receipt_is_found(receipt: Receipt, tmp_path: Path) -> None:
    receipt.write(tmp_path / "r.json")
    whole = json.loads((tmp_path / "r.json").read_text())

    def broken(change) -> None:
        data = json.loads(json.dumps(whole))
        change(data)
        (tmp_path / "r.json").write_text(json.dumps(data))
        with pytest.raises(ReceiptInvalid):
            Receipt.read(tmp_path / "r.json")

    broken(lambda data: data["facts"].update(files=4))
    broken(lambda data: data["guarantee"].update(type="heuristic"))
    broken(lambda data: data.update(extra=1))
    broken(lambda data: data.pop("digest"))
    broken(lambda data: data["ledger_rows"][0]["body"].update(at="x"))
    broken(lambda data: data["ledger_rows"].pop())
    broken(lambda data: data["ledger_rows"].reverse())
    broken(lambda data: data.update(format="other"))
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(ReceiptInvalid, match="does not read"):
        Receipt.read(tmp_path / "r.json")


def test_a_receipt_of_another_ledger_is_found(receipt: Receipt) -> None:
    with pytest.raises(ReceiptInvalid, match="belongs to ledger"):
        receipt.verify_ledger(Ledger(":memory:"))


def test_missing_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    receipt = Receipt(
        {
            "guarantee": {"type": "heuristic"},
            "outputs": [{"sha256": Output.of(tmp_path / "a").sha256, "bytes": 1}],
        }
    )
    (tmp_path / "b").write_bytes(b"b")
    assert receipt.verify_files([tmp_path / "a", tmp_path / "b"]) == (tmp_path / "b",)
    (tmp_path / "a").write_bytes(b"changed")
    with pytest.raises(ReceiptInvalid, match="1 of 1"):
        receipt.verify_files([tmp_path / "a", tmp_path / "b"])


# Kills


def _names(folder: Path) -> list[str]:
    return [path.name for path in (folder / "released").iterdir()]


def _kills(folder: Path, place: str, count: int, mode: str = "release") -> tuple[int, int]:
    """Kill a releasing process at random moments; count the releases and the uncharged."""
    _prepare(folder, place)
    dice = random.Random(7)
    for _ in range(count):
        process = _worker(folder, place, mode)
        _until_one_more(folder, process)
        time.sleep(dice.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert errors == b""
    return _outcome(folder, place)


def _prepare(folder: Path, place: str) -> None:
    ledger = Ledger(place, FileAnchor(folder / "l.heads"), create=True)
    ledger.open_population("residents", epsilon=1, delta=0, unit="person")
    ledger.open_share("residents", "all", kind="sum", epsilon=1, delta=0)
    ledger.close()
    (folder / "released").mkdir()


def _worker(folder: Path, place: str, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, WORKER, mode, folder, place], stderr=subprocess.PIPE)


def _until_one_more(folder: Path, process: subprocess.Popen[bytes]) -> None:
    seen = len(_names(folder))
    while len(_names(folder)) == seen and process.poll() is None:
        time.sleep(0.002)


def _outcome(folder: Path, place: str) -> tuple[int, int]:
    """Count the releases, and those of them that no charge of their own stands behind."""
    ledger = Ledger(place, FileAnchor(folder / "l.heads"))
    verify(ledger)
    released = Counter(int(name.split("-")[0]) for name in _names(folder))
    charged = {row.seq for row in ledger.entries() if row.kind == "reserve"}
    return released.total(), sum(n - (seq in charged) for seq, n in released.items())


def test_kills_leave_no_uncharged_release(place: str, tmp_path: Path) -> None:
    released, uncharged = _kills(tmp_path, place, 8)
    assert released
    assert not uncharged


def test_the_harness_finds_a_release_that_is_charged_afterwards(place: str, tmp_path: Path) -> None:
    released, uncharged = _kills(tmp_path, place, 4, "careless")
    assert released
    assert uncharged


def _server_kills(postgres, folder: Path, count: int, mode: str) -> tuple[int, int]:
    """Kill the server under a releasing process at random moments, and start it again."""
    place = postgres.url()
    _prepare(folder, place)
    dice = random.Random(7)
    for _ in range(count):
        process = _worker(folder, place, mode)
        _until_one_more(folder, process)
        time.sleep(dice.random() * 0.05)
        postgres.kill()
        _, errors = process.communicate(timeout=60)
        assert b"LedgerUnavailable" in errors
        postgres.start()
    return _outcome(folder, place)


def test_kills_of_the_server_leave_no_uncharged_release(postgres, tmp_path: Path) -> None:
    released, uncharged = _server_kills(postgres, tmp_path, 5, "release")
    assert released >= 5
    assert not uncharged


def test_the_harness_finds_an_uncharged_release_when_the_server_dies(postgres, tmp_path: Path) -> None:
    released, uncharged = _server_kills(postgres, tmp_path, 4, "careless")
    assert released
    assert uncharged


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_three_hundred_kills_leave_no_uncharged_release(place: str, tmp_path: Path) -> None:
    released, uncharged = _kills(tmp_path, place, 300)
    assert released >= 300
    assert not uncharged


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_kills_of_the_server_leave_no_uncharged_release(postgres, tmp_path: Path) -> None:
    released, uncharged = _server_kills(postgres, tmp_path, 100, "release")
    assert released >= 100
    assert not uncharged
