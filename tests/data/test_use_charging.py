"""Whom a plan made by `use` charges; and uses by analysts, through a token, in a vault, by two at once."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sfumato.core import identity
from sfumato.core.errors import BudgetSpent, IntegrityError, PolicyRefused
from sfumato.core.event import PureDP
from sfumato.core.identity import Actor
from sfumato.core.project import Project
from sfumato.core.verify import verify
from sfumato.core.versions import touched, versions
from sfumato.data.add import add
from sfumato.data.blocks import blocks_of, restrict
from sfumato.data.contents import people, table
from sfumato.data.door import Request
from sfumato.data.erasure import erase
from sfumato.data.export import Wish, export
from sfumato.data.lineage import copy, merge
from sfumato.data.opening import open_data
from sfumato.data.use import Use, use
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access

POLICY = """
[project]
name = "clinic"
[roles]
owner = ["maria"]
curator = ["carl"]
analyst = ["eva", "token:kiosk"]
auditor = ["ben"]
[purposes.research]
lawful_basis = "consent"
actions = ["query", "export"]
[purposes.care]
actions = ["query", "export"]
[purposes.billing]
actions = ["query"]
[populations.patients]
unit = "person"
epsilon = 1
blocks = "hash 4"
[populations.staff]
unit = "person"
epsilon = 1
[datasets.clinic]
keep = ["age"]
unit = "who"
population = "patients"
purposes = ["research", "care"]
partition = "subject"
[datasets.staff]
keep = ["age"]
unit = "who"
population = "staff"
purposes = ["research", "care", "billing"]
partition = "subject"
[datasets.bills]
purposes = ["billing"]
"""
ROWS = "who,age\n" + "".join(f"{number},{20 + number}\n" for number in range(12))


class Room:
    def __init__(self, root: Path, *, sealed: bool) -> None:
        self.root = root / "p"
        Project.init(self.root).close()
        (self.root / "sfumato.toml").write_text(POLICY)
        if sealed:
            Vault.init(self.root, "file", Access(options={"path": str(root / "master.key")}))
        self.project = Project(self.root)
        self.catalogue, self.store = open_data(self.project)
        for name in ("clinic", "staff"):
            (self.root / f"{name}.csv").write_text(ROWS if name == "clinic" else ROWS + "12,32\n")
            self.add(name)

    def add(self, name: str) -> None:
        request = Request(dataset=name, path=self.root / f"{name}.csv")
        add(self.catalogue, self.store, self.project.policy, request)

    def release(self, used: Use, epsilon: float = 0.25, gate=None, **fields) -> list[str]:
        """Make a private release; return the accounts that it charged."""
        plan = used.plan(
            mechanism="laplace", guarantee="proven", statement="a test", event=PureDP(epsilon=epsilon),
            share="all", **fields,
        )  # fmt: skip
        ledger = self.project.ledger
        before = {row.seq for row in ledger.book.all(kind="reserve")}
        with (gate or self.project.gate()).open(plan) as permit:
            permit.entropy.bytes(4)
            permit.settle()
        return sorted(row.share for row in ledger.book.all(kind="reserve") if row.seq not in before)


def act_as(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(identity, "local_user", lambda: (f"uid:{sum(name.encode())}", name))


@pytest.fixture(params=["plain", "vault"])
def room(tmp_path: Path, monkeypatch, request) -> Room:
    act_as(monkeypatch, "maria")
    return Room(tmp_path, sealed=request.param == "vault")


BLOCKS = [f"patients#h{number:03}/all" for number in range(4)]


def test_every_population_and_block_pays_without_being_named(room: Room) -> None:
    assert room.release(use(room.project, "clinic", "care", "query")) == BLOCKS
    assert room.release(use(room.project, "staff", "care", "query")) == ["staff/all"]
    both = merge(room.catalogue, [room.catalogue.find("clinic"), room.catalogue.find("staff")], "both")
    used = use(room.project, both.spec, "care", "query")
    assert used.populations == ("patients", "staff")
    assert room.release(used) == [*BLOCKS, "staff/all"]
    assert room.release(used, population="staff") == [*BLOCKS, "staff/all"]
    with pytest.raises(PolicyRefused, match="the plan charges patients"):
        room.release(used, also=())
    verify(room.project.ledger)


def test_a_view_of_blocks_pays_for_these_alone(room: Room) -> None:
    """Its own dataset is not in the policy, and it is held to the rules of the one that it was made from."""
    whole = room.catalogue.find("clinic")
    where = set(blocks_of(room.catalogue, room.project.ledger, "patients").values())
    one, other = sorted(where)[:2]
    for block in (one, other):
        view = restrict(room.catalogue, room.project.ledger, whole, (block,), f"only-{block}")
        assert touched(room.project.ledger, (view.hash,)) == {"patients": (block,)}
        used = use(room.project, view.spec, "care", "query")
        assert used.datasets == (("clinic", view.hash),)
        assert room.release(used, 1) == [f"patients#{block}/all"]
        with pytest.raises(PolicyRefused):
            use(room.project, view.spec, "billing", "query")
    with pytest.raises(BudgetSpent):
        room.release(use(room.project, "clinic", "care", "query"))
    cut = use(room.project, f"only-{one}", "research", "query").version
    assert touched(room.project.ledger, (cut.hash,)) == {"patients": (one,)}
    room.project.close()
    again = Project(room.root)
    open_data(again)  # records nothing anew, and nothing else
    verify(again.ledger)


def test_the_gate_walks_a_versions_rows_itself(room: Room) -> None:
    """Negative control: a plan that names only a copy, under a name that the policy gives other purposes."""
    version = copy(room.catalogue, room.catalogue.find("clinic"), "bills")
    with pytest.raises(PolicyRefused, match="was collected for: care, research"):
        use(room.project, "bills", "billing", "query")
    used = use(room.project, "staff", "billing", "query")
    with pytest.raises(PolicyRefused, match="'clinic' was given for"):
        room.project.gate().check(
            used.plan(
                mechanism="count", guarantee="heuristic", statement="x", datasets=(("bills", version.hash),)
            )
        )
    with pytest.raises(PolicyRefused, match="does not say"):
        room.project.gate().check(
            used.plan(mechanism="count", guarantee="heuristic", statement="x", datasets=(("bill", "0" * 64),))
        )


def give(room: Room, *numbers: int) -> list[str]:
    found = [room.catalogue.people.subject(str(number), "patients") for number in numbers]
    for one in found:
        room.project.consent.give(one, "research")
    return found


def test_an_analyst_makes_a_private_release_of_a_new_cut(room: Room, monkeypatch) -> None:
    agreed = give(room, *range(6))
    act_as(monkeypatch, "eva")
    room.project = Project(room.root)
    rows = len(versions(room.project.ledger))
    used = use(room.project, "clinic", "research", "query")
    assert set(people(used.store, used.version)) == set(agreed)
    assert used.version.spec == "clinic@1w1"
    assert room.release(used) == BLOCKS
    row = versions(room.project.ledger)[-1].body
    assert (row["label"], row["how"], row["by"]["role"]) == ("1w1", "withdrawn", "analyst")
    assert len(versions(room.project.ledger)) == rows + 1
    copied = copy(room.catalogue, used.version, "mine")  # an analyst records no other version
    with pytest.raises(PolicyRefused, match="curate"):
        room.project.gate().record_version(
            dataset="mine", label="1", hash=copied.hash, how="copy", parents=copied.parents, populations={}
        )
    verify(room.project.ledger)


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "2"},
        {"label": "2w1"},
        {"label": "1w"},
        {"label": "1w1", "dataset": "staff"},
        {"label": "1w1", "parent": "0" * 64},
    ],
)
def test_what_is_no_cut_is_not_recorded_as_one(room: Room, wrong) -> None:
    version = room.catalogue.find("clinic")
    facts = {"dataset": "clinic", "label": "1w1", "hash": "a" * 64, "parent": version.hash}
    gate = room.project.gate(actor=Actor("uid:5", "analyst", "eva"))
    with pytest.raises(PolicyRefused, match="no version that people left"):
        gate.record_cut(**(facts | wrong))
    row = gate.record_cut(**facts)
    assert gate.record_cut(**facts) == row
    assert row.body["populations"] == {"patients": [f"h{number:03}" for number in range(4)]}
    with pytest.raises(IntegrityError):
        gate.record_cut(**(facts | {"hash": "b" * 64}))
    for role in ("auditor", None):
        with pytest.raises(PolicyRefused, match="curate"):
            room.project.gate(actor=Actor("uid:6", role, "ben")).record_cut(**facts)


def test_a_token_of_an_analyst_uses_and_releases(room: Room) -> None:
    pytest.importorskip("argon2", reason="tokens need argon2-cffi: pip install 'sfumato[server]'")
    agreed = give(room, 1, 2, 3)
    ends = datetime.now(UTC) + timedelta(days=1)
    text, _ = room.project.tokens.create("kiosk", "analyst", expires=ends, purposes=("research",))
    gate = room.project.gate(actor=room.project.tokens.authenticate(text, room.project.policy))
    used = use(room.project, "clinic", "research", "query", gate=gate)
    assert set(people(used.store, used.version)) == set(agreed)
    assert room.release(used, gate=gate) == BLOCKS
    for purpose, action in (("care", "query"), ("research", "export")):
        with pytest.raises(PolicyRefused):
            use(room.project, "clinic", purpose, action, gate=gate)


WORKER = """
import sys
from pathlib import Path
from sfumato.core import identity
identity.local_user = lambda: (f"uid:{sum(sys.argv[2].encode())}", sys.argv[2])
from sfumato.core.project import Project
from sfumato.data.use import use
project = Project(Path(sys.argv[1]))
used = use(project, "clinic", "research", "query")
print(used.version.spec, used.version.hash, len(used.version.items))
"""


def test_two_processes_that_cut_at_once_both_get_the_same_people(room: Room) -> None:
    give(room, 1, 2, 3)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(room.root), name], stdout=subprocess.PIPE, text=True
        )
        for name in ("eva", "maria")
    ]
    told = [one.communicate(timeout=60)[0].split() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert {one[2] for one in told} == {"3"}
    known = {row.body["hash"] for row in versions(room.project.ledger)}
    assert {one[1] for one in told} <= known
    verify(room.project.ledger)


def test_what_leaves_after_an_erasure_is_counted_as_written(tmp_path: Path, monkeypatch) -> None:
    act_as(monkeypatch, "maria")
    room = Room(tmp_path, sealed=True)
    agreed = give(room, *range(6))
    assert isinstance(room.store, Vault)
    erase(room.store, agreed[0], room.project.gate())
    used = use(room.project, "clinic", "care", "export")
    folder = tmp_path / "out"
    receipt = export(room.project.gate(), used, folder, Wish(form="csv"))
    written = len((folder / "rows.csv").read_text().splitlines()) - 1
    assert (receipt.body["facts"]["rows"], receipt.body["facts"]["erased_pieces"]) == (written, 1) == (11, 1)
    assert "11 rows, of 11 people" in (folder / "croissant.json").read_text()
    cut = use(room.project, "clinic", "research", "query").version
    assert len(table(room.store, cut)) == cut.facts.rows == len(cut.items) == 5  # without who was erased
