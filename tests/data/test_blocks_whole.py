"""Blocks through the real catalogue: who pays for a dataset, for a view of it, and for what becomes of it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.event import PureDP
from sfumato.core.project import Project
from sfumato.core.verify import verify
from sfumato.data.add import add
from sfumato.data.blocks import blocks_of, restrict
from sfumato.data.catalogue import FOLDER as CATALOGUE
from sfumato.data.catalogue import Catalogue
from sfumato.data.contents import without
from sfumato.data.door import Request
from sfumato.data.lineage import copy, merge
from sfumato.data.opening import open_data
from sfumato.data.recording import Recorder
from sfumato.data.use import use

POLICY = """
[project]
name = "t"
[purposes.study]
actions = ["query"]
[populations.p]
unit = "person"
epsilon = 1
blocks = "RULE"
[populations.q]
unit = "person"
epsilon = 1
blocks = "hash 2"
[datasets.d]
keep = ["x"]
purposes = ["study"]
unit = "who"
population = "p"
partition = "subject"
[datasets.e]
keep = ["x"]
purposes = ["study"]
unit = "who"
population = "q"
partition = "PARTITION"
"""
JULY, OCTOBER = "2026-07-01T00:00:00.000000+00:00", "2026-10-01T00:00:00.000000+00:00"


class Place:
    def __init__(
        self, root: Path, clock, rule: str = "enrolment quarter", partition: str = "subject"
    ) -> None:
        self.root, self._clock = root, clock
        self.at(JULY)
        root.mkdir(exist_ok=True)
        Project.init(root).close()
        (root / "sfumato.toml").write_text(POLICY.replace("RULE", rule).replace("PARTITION", partition))
        self.project = Project(root)
        _ = self.project.ledger
        self.catalogue, self.store = open_data(self.project)

    def at(self, when: str) -> None:
        self._clock.setattr("sfumato.core.ledger._now", lambda: when)

    def add(self, dataset: str, *people: str):
        path = self.root / f"{dataset}.csv"
        path.write_text("who,x\n" + "".join(f"{one},{index}\n" for index, one in enumerate(people)))
        request = Request(dataset=dataset, path=path)
        return add(self.catalogue, self.store, self.project.policy, request).version

    def release(self, spec: str) -> dict[str, str]:
        """Release something from a version; return what each block has spent."""
        used = use(self.project, spec, "study", "query")
        plan = used.plan(mechanism="m", guarantee="proven", statement="s", event=PureDP("0.25"), share="all")
        with self.project.gate().open(plan) as permit:
            permit.settle()
        return self.spent()

    def spent(self) -> dict[str, str]:
        balances = self.project.ledger.balances()
        return {one.population: str(one.spent_epsilon) for one in balances if one.spent_epsilon}

    def subject(self, name: str, population: str = "p") -> str:
        return self.catalogue.people.subject(name, population)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """People of two periods: ann and bob came in July, cy in October."""
    made = Place(tmp_path, monkeypatch)
    made.add("d", "ann", "bob")
    made.at(OCTOBER)
    made.add("d", "ann", "bob", "cy")
    return made


def test_a_view_pays_for_its_block_and_the_whole_for_all(place: Place) -> None:
    late = restrict(place.catalogue, place.project.ledger, place.catalogue.find("d"), ("2026-Q4",), "late")
    assert {item.subject for item in late.items} == {place.subject("cy")}
    assert place.release("late") == {"p#2026-Q4": "1/4"}
    assert place.release("d") == {"p#2026-Q3": "1/4", "p#2026-Q4": "1/2"}
    assert place.release("d@1") == {"p#2026-Q3": "1/2", "p#2026-Q4": "1/2"}  # it was there before October
    assert verify(place.project.ledger).releases == 3


def test_copies_renames_and_cuts_pay_what_they_came_from_pays(place: Place) -> None:
    late = restrict(place.catalogue, place.project.ledger, place.catalogue.find("d"), ("2026-Q4",), "late")
    place.at("2027-01-01T00:00:00.000000+00:00")
    copy(place.catalogue, late, "renamed")
    place.catalogue.retire(late, "renamed")
    assert place.release("renamed") == {"p#2026-Q4": "1/4"}
    copy(place.catalogue, place.catalogue.find("d@1"), "old")
    assert place.release("old") == {"p#2026-Q3": "1/4", "p#2026-Q4": "1/4"}
    without(place.catalogue, place.store, place.catalogue.find("d"), [place.subject("cy")])
    # Who is in it does not count, only what it came from: so that a refusal tells of nobody.
    assert place.release("d") == {"p#2026-Q3": "1/2", "p#2026-Q4": "1/2"}
    verify(place.project.ledger)


def test_a_new_source_under_a_name_with_versions_touches_all_blocks_up_to_its_day(place: Place) -> None:
    place.at("2027-01-01T00:00:00.000000+00:00")
    place.add("d", "ann", "dee")
    assert set(place.release("d")) == {"p#2026-Q3", "p#2026-Q4", "p#2027-Q1"}


def test_a_person_who_left_comes_back_into_the_old_block(place: Place) -> None:
    gone = without(place.catalogue, place.store, place.catalogue.find("d"), [place.subject("ann")])
    assert place.subject("ann") not in {item.subject for item in gone.items}
    place.at("2027-01-01T00:00:00.000000+00:00")
    place.add("d", "ann", "dee")
    where = blocks_of(place.catalogue, place.project.ledger, "p")
    assert {where[place.subject("ann")], where[place.subject("dee")]} == {"2026-Q3", "2027-Q1"}
    view = restrict(place.catalogue, place.project.ledger, place.catalogue.find("d"), ("2027-Q1",), "new")
    assert {item.subject for item in view.items} == {place.subject("dee")}


def test_two_populations_put_together_pay_both(place: Place) -> None:
    other = place.add("e", "ann", "eve")
    merge(place.catalogue, [place.catalogue.find("d@1"), other], "both")
    quarter = {"p#2026-Q3": "1/4", "q#h000": "1/4", "q#h001": "1/4"}
    assert place.release("both") == quarter
    with pytest.raises(InvalidRequest, match="exactly one"):
        restrict(place.catalogue, place.project.ledger, place.catalogue.find("both"), ("2026-Q3",), "x")
    used = use(place.project, "both", "study", "query")
    careless = {"population": "p", "also": ()}
    plan = used.plan(
        mechanism="m", guarantee="proven", statement="s", event=PureDP("0.1"), share="all", **careless
    )
    with pytest.raises(PolicyRefused, match="the plan charges p"):
        place.project.gate().open(plan)


def test_blocks_by_hash_and_tables_stored_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "a", monkeypatch)
    people = [f"person-{index}" for index in range(12)]
    version = place.add("e", *people)
    view = restrict(place.catalogue, place.project.ledger, version, ("h001",), "some")
    mine = {one for one in (place.subject(name, "q") for name in people) if int(one, 16) % 2}
    assert {item.subject for item in view.items} == mine
    assert place.release("some") == {"q#h001": "1/4"}
    whole = Place(tmp_path / "b", monkeypatch, partition="whole")
    version = whole.add("e", *people)
    with pytest.raises(InvalidRequest, match="partition"):
        restrict(whole.catalogue, whole.project.ledger, version, ("h001",), "some")
    text = (whole.root / "sfumato.toml").read_text().replace('partition = "subject"', 'partition = "whole"')
    (whole.root / "sfumato.toml").write_text(text)
    whole.project = Project(whole.root)
    with pytest.raises(PolicyRefused, match="stored"):
        whole.add("d", "ann")
    assert "d" not in whole.catalogue.names()


def test_a_view_that_was_not_recorded_is_recorded_at_the_next_opening(place: Place) -> None:
    unheard = Catalogue(place.catalogue.root, place.catalogue.people)  # as if stopped before the row
    restrict(unheard, place.project.ledger, unheard.find("d"), ("2026-Q4",), "late")
    open_data(place.project)
    assert place.release("late") == {"p#2026-Q4": "1/4"}


def test_a_version_that_cannot_be_recorded_keeps_nobody_from_the_others(place: Place) -> None:
    catalogue, _ = open_data(place.project)
    unheard = Catalogue(place.root / ".sfumato" / CATALOGUE, catalogue.people)
    lost = copy(unheard, unheard.find("d@1"), "lost")
    data = json.loads((unheard.root / "lost" / "1.json").read_text())
    data["facts"]["made_by"] = "blocks nobody#2026-Q4"  # a view of a population that there is not
    data["facts"]["reader"] = "blocks"
    from sfumato.core.files import digest_of

    data["hash"] = digest_of({name: data[name] for name in ("items", "parents", "facts")})
    (unheard.root / "lost" / "1.json").write_text(json.dumps(data))
    recorder = Recorder(place.project)
    assert recorder.catch_up(unheard) == 0
    assert list(recorder.refused) == [lost.spec]
    open_data(place.project)
    assert place.release("d@1") == {"p#2026-Q3": "1/4"}
    with pytest.raises((PolicyRefused, InvalidRequest)):
        place.release("lost")


def test_the_command_makes_a_view(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> int:
        with contextlib.chdir(place.root):
            try:
                main(list(arguments))
            except SystemExit as stop:
                return int(stop.code or 0)
        return 0

    assert run("data", "view", "d", "--blocks", "2026-Q4", "--as", "late", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dataset"], said["subjects"], said["blocks"]) == ("late", 1, ["2026-Q4"])
    assert place.release("late") == {"p#2026-Q4": "1/4"}
    assert run("data", "view", "d", "--blocks", "1999-Q1", "--as", "late") == 2
    assert "block" in capsys.readouterr().err
    place.release("d")
    assert run("ledger", "show") == 0
    shown = capsys.readouterr().out
    assert "pure" in shown
    assert "p#2026-Q4/all: with row" in shown
    assert "and p#2026-Q4/all" in shown
    assert run("ledger", "plan") == 0
    assert "p/all (filter), all 2 blocks (least left: 2026-Q4): left epsilon 0.5" in capsys.readouterr().out
    assert run("ledger", "plan", "--block", "2026-Q3", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)["shares"]
    assert (one["population"], one["left_epsilon"]) == ("p#2026-Q3", "0.75")
