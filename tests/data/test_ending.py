"""The end of versions: the ledger first, then the note, then the bytes that nobody else needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused
from sfumato.core.identity import Actor
from sfumato.core.project import Project
from sfumato.core.verify import verify as verify_ledger
from sfumato.core.versions import RETENTION, retired
from sfumato.data.add import add
from sfumato.data.check import verify
from sfumato.data.contents import table
from sfumato.data.door import Request
from sfumato.data.ending import end_due
from sfumato.data.lineage import copy, merge
from sfumato.data.opening import open_data
from sfumato.data.recording import recorded
from sfumato.data.store import PlainStore
from sfumato.data.use import use
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access

POLICY = """
[project]
name = "clinic"
[purposes.care]
actions = ["query", "export"]
[purposes.research]
lawful_basis = "consent"
actions = ["query"]
[populations.patients]
unit = "patient"
epsilon = 1
[datasets.clinic]
keep = ["age"]
unit = "patient"
population = "patients"
purposes = ["care", "research"]
[retention.datasets]
clinic = 30
short = 5
"""


class Room:
    def __init__(self, root: Path, *, sealed: bool) -> None:
        Project.init(root / "p").close()
        self.root = root / "p"
        (self.root / "sfumato.toml").write_text(POLICY)
        if sealed:
            Vault.init(self.root, "file", Access(options={"path": str(root / "master.key")}))
        self.project = Project(self.root)
        self.log = self.root / ".sfumato" / "retention.jsonl"
        self.open()

    def open(self) -> None:
        self.catalogue, self.store = open_data(self.project)

    def add(self, rows: str):
        path = self.root / "v.csv"
        path.write_text("patient,age\n" + rows)
        request = Request(dataset="clinic", path=path)
        return add(self.catalogue, self.store, self.project.policy, request).version

    def end(self, days: float, **more):
        now = datetime.now(UTC) + timedelta(days=days)
        return end_due(self.catalogue, self.store, self.project.gate(), self.log, now=now, **more)

    def check(self):
        known = recorded(self.project)
        return verify(self.catalogue, self.store, ledger=known, over=retired(self.project.ledger, RETENTION))

    def everything(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(self.root.rglob("*")) if p.is_file()}


@pytest.fixture(params=["plain", "vault"])
def room(tmp_path: Path, request) -> Room:
    return Room(tmp_path, sealed=request.param == "vault")


def specs(ended) -> list[str]:
    return sorted(f"{one.held.dataset}@{one.held.version}" for one in ended.due)


def test_what_is_due_goes_and_its_history_stays(room: Room) -> None:
    room.add("1,40\n2,50\n")
    copy(room.catalogue, room.catalogue.find("clinic"), "cohort")
    assert room.end(29).due == ()
    before = room.everything()
    assert specs(room.end(31, dry_run=True)) == ["clinic@1", "cohort@1"]
    assert room.everything() == before
    done = room.end(31)
    assert specs(done) == ["clinic@1", "cohort@1"]
    assert done.removed == len({item.name for item in room.catalogue.find("clinic").items})
    assert list(room.store.names()) == []
    assert "retention: 30 days" in (room.catalogue.retired(room.catalogue.find("cohort")) or "")
    assert room.check().versions == 2
    verify_ledger(room.project.ledger)
    with pytest.raises(PolicyRefused, match="retired"):
        use(room.project, "clinic", "care", "query")
    assert [one["what"] for one in map(json.loads, room.log.read_text().splitlines())].count("ended") == 2
    room.open()
    assert room.end(32).due == ()
    assert len(list(room.project.ledger.book.all(kind="retired"))) == 2


def test_the_shortest_rule_counts_and_shared_data_stays_until_the_last(room: Room) -> None:
    whole = room.add("1,40\n2,50\n")
    short = copy(room.catalogue, whole, "short")
    both = merge(room.catalogue, [whole, short], "both")
    assert specs(room.end(6)) == ["short@1"]
    assert len(table(room.store, whole)) == 2
    assert len(table(room.store, both)) == 4
    room.check()
    assert specs(room.end(31)) == ["both@1", "clinic@1"]
    assert list(room.store.names()) == []
    room.check()


def test_a_cut_ends_with_what_it_was_cut_from(room: Room) -> None:
    room.add("1,40\n2,50\n3,60\n")
    subject = room.catalogue.people.subject("1", "patients")
    room.project.consent.give(subject, "research")
    cut = use(room.project, "clinic", "research", "query").version
    assert cut.label == "1w1"
    assert specs(room.end(31)) == ["clinic@1", "clinic@1w1"]
    assert list(room.store.names()) == []
    room.check()


def test_what_was_retired_by_hand_ends_too(room: Room) -> None:
    version = room.add("1,40\n")
    room.catalogue.retire(version, "retention was named as the reason")
    assert retired(room.project.ledger, RETENTION) == frozenset()  # nobody's words end anything
    room.check()
    assert specs(room.end(31)) == ["clinic@1"]
    assert "was named" in (room.catalogue.retired(version) or "")
    room.check()


def test_a_new_version_keeps_its_own_time(room: Room) -> None:
    room.add("1,40\n")
    newer = room.add("1,40\n2,50\n")
    path = room.catalogue.root / "clinic" / "1.json"
    data = json.loads(path.read_text())
    data["created"] = (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="seconds")
    path.write_text(json.dumps(data))
    assert specs(room.end(0)) == ["clinic@1"]
    assert len(table(room.store, newer)) == 2
    assert use(room.project, "clinic", "care", "query").version == newer
    room.check()


@pytest.mark.parametrize("point", ["row", "note", "bytes"])
def test_a_run_that_was_stopped_is_completed(room: Room, monkeypatch, point: str) -> None:
    room.add("1,40\n2,50\n")
    copy(room.catalogue, room.catalogue.find("clinic"), "cohort")

    class Killed(BaseException):
        pass

    def stop(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if point == "row":
            patched.setattr(room.catalogue, "retire", stop)
        elif point == "note":
            patched.setattr(room.store, "remove", stop)
        else:
            real = room.store.remove
            patched.setattr(room.store, "remove", lambda name: (real(name), stop()))
        with pytest.raises(Killed):
            room.end(31)
    if point == "row":
        with pytest.raises(IntegrityError, match="sfumato data retain"):
            room.check()
    room.open()
    policy = room.root / "sfumato.toml"
    policy.write_text(POLICY.replace("clinic = 30", "clinic = 90"))  # what was begun is ended all the same
    room.project.close()
    room.project = Project(room.root)
    room.open()
    room.end(31)
    policy.write_text(POLICY)
    room.project.close()
    room.project = Project(room.root)
    room.end(31)
    assert list(room.store.names()) == []
    assert len(list(room.project.ledger.book.all(kind="retired"))) == 2
    room.check()


def test_missing_data_verifies_only_where_the_ledger_says_that_it_ended(room: Room) -> None:
    """Negative control: a note alone, or a row for another version, excuses nothing."""
    version = room.add("1,40\n")
    room.catalogue._recorder = None
    room.catalogue.retire(version, "retention: 30 days are over")
    for name in list(room.store.names()):
        room.store.remove(name)
    with pytest.raises(IntegrityError, match="missing"):
        room.check()
    for wrong in (("clinic", "1", "0" * 64), ("clinic", "2", version.hash), ("other", "1", version.hash)):
        with pytest.raises(IntegrityError, match="missing"):
            verify(room.catalogue, room.store, over={wrong})
    room.open()  # which records the note, as retired by hand
    with pytest.raises(IntegrityError, match="missing"):
        room.check()
    verify(room.catalogue, room.store, over={("clinic", "1", version.hash)})


def test_curators_only_and_nothing_while_a_version_is_added(room: Room) -> None:
    room.add("1,40\n")
    gate = room.project.gate(actor=Actor("uid:2", "analyst", "someone"))
    with pytest.raises(PolicyRefused, match="curate"):
        end_due(room.catalogue, room.store, gate, room.log, now=datetime.now(UTC) + timedelta(days=31))
    with room.catalogue.claim("other"), pytest.raises(InvalidRequest, match="is being added"):
        room.end(31)
    with pytest.raises(InvalidRequest, match="Set the clock"):
        room.end(-1)
    assert not room.log.exists()
    assert room.catalogue.retired(room.catalogue.find("clinic")) is None


def test_keys_of_people_stay(tmp_path: Path) -> None:
    room = Room(tmp_path, sealed=True)
    room.add("1,40\n")
    keys = sorted((room.root / ".sfumato" / "keys").rglob("*"))
    room.end(31)
    assert sorted((room.root / ".sfumato" / "keys").rglob("*")) == keys
    assert not isinstance(room.store, PlainStore)
