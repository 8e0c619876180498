"""A withdrawn consent and a forbidden purpose refuse training, query and export alike."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from sfumato.core.errors import PolicyRefused
from sfumato.core.event import Gaussian
from sfumato.core.project import Project
from sfumato.data.add import add
from sfumato.data.catalogue import OBJECTS, Catalogue
from sfumato.data.contents import people, table
from sfumato.data.door import Request
from sfumato.data.export import Wish, export
from sfumato.data.lineage import copy, merge
from sfumato.data.store import PlainStore
from sfumato.data.use import Use, use

POLICY = """
[project]
name = "clinic"
[purposes.research]
lawful_basis = "consent"
actions = ["query", "train", "export"]
[purposes.trial]
lawful_basis = "consent"
actions = ["query", "train", "export"]
[purposes.care]
lawful_basis = "contract"
actions = ["query", "train", "export"]
[purposes.billing]
lawful_basis = "contract"
actions = ["query", "train", "export"]
[purposes.reading]
lawful_basis = "contract"
actions = ["redact"]
[populations.patients]
unit = "patient"
epsilon = 10
delta = 1e-5
[datasets.clinic]
keep = ["age", "note"]
unit = "patient"
population = "patients"
purposes = ["research", "care", "trial"]
partition = "PARTITION"
"""

ROWS = (
    "patient,age,note\n007,40,secret-of-ann\n008,41,secret-of-bob\n007,42,more-of-ann\n009,74,secret-of-cy\n"
)
ACTIONS = ("train", "query", "export")


class Clinic:
    """A project with one dataset, and what each capability would release of it."""

    def __init__(self, root: Path, rows: str = ROWS, partition: str = "whole") -> None:
        Project.init(root).close()
        (root / "sfumato.toml").write_text(POLICY.replace("PARTITION", partition))
        self.project = Project(root)
        self.catalogue, self.store = Catalogue.of(self.project), PlainStore(root / ".sfumato" / OBJECTS)
        self.add(rows)
        self.ids = {}
        for row in table(self.store, self.catalogue.find("clinic")).to_pylist():
            self.ids[row["note"].rpartition("-")[2]] = row["patient"]

    def add(self, rows: str) -> None:
        path = self.project.root / "visits.csv"
        path.write_text(rows)
        add(self.catalogue, self.store, self.project.policy, Request(dataset="clinic", path=path))

    def register(self):
        """The project's consent register, which takes pseudonyms."""
        return self.project.consent

    def give(self, *names: str, purpose: str = "research") -> None:
        for name in names:
            self.register().give(self.ids[name], purpose)

    def withdraw(self, *names: str, purpose: str = "research") -> None:
        for name in names:
            self.register().withdraw(self.ids[name], purpose)

    def use(self, action: str, purpose: str = "research", spec: str = "clinic") -> Use:
        return use(self.project, spec, purpose, action)

    def release(self, used: Use, out: str = "out") -> bytes:
        """Release what a use holds, in the way of its action; return every byte that leaves."""
        gate, folder = self.project.gate(), self.project.root / out
        if used.action == "export":
            export(gate, used, folder, Wish(form="csv"))
            return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
        plan = used.plan(
            mechanism="gaussian",
            guarantee="proven",
            statement="for test",
            event=Gaussian(noise_multiplier=20),
            share="all",
        )
        rows = table(used.store, used.version).to_pylist()
        with gate.open(plan) as permit:
            permit.entropy.bytes(8)
            permit.releasing()
            receipt = permit.settle(facts=used.facts(proven=True))
        text = io.StringIO()
        csv.writer(text).writerows(row.values() for row in rows)
        return text.getvalue().encode() + repr(receipt.body).encode()


@pytest.fixture(params=["whole", "subject"])
def clinic(tmp_path: Path, request) -> Clinic:
    made = Clinic(tmp_path / "clinic", partition=request.param)
    made.give("ann", "bob", "cy")
    return made


@pytest.mark.parametrize("action", ACTIONS)
def test_a_forbidden_purpose_is_refused(clinic, action) -> None:
    for purpose, rule in (
        ("billing", "datasets.clinic.purposes"),
        ("reading", "purposes.reading.actions"),
        ("anything", "purposes"),
    ):
        with pytest.raises(PolicyRefused) as refused:
            clinic.use(action, purpose)
        assert refused.value.rule == rule
        assert list(clinic.project.ledger.entries())[-1].body["rule"] == rule


@pytest.mark.parametrize("action", ACTIONS)
def test_who_withdrew_is_in_no_byte_that_leaves(clinic, action) -> None:
    assert b"of-ann" in clinic.release(clinic.use(action), "before")
    clinic.withdraw("ann")
    for spec in ("clinic", "clinic@1"):
        used = clinic.use(action, spec=spec)
        left = clinic.release(used, spec.replace("@", "-"))
        assert b"of-ann" not in left
        assert clinic.ids["ann"].encode() not in left
        assert b"secret-of-bob" in left
        assert used.version.facts.reader == "withdrawn"
        assert used.version.facts.agreed[0] == "research"


@pytest.mark.parametrize("action", ACTIONS)
def test_a_plan_from_before_the_withdrawal_is_refused(clinic, action) -> None:
    used = clinic.use(action)
    clinic.withdraw("ann")
    with pytest.raises(PolicyRefused, match="withdrawn after this plan was made"):
        clinic.release(used)
    assert not (clinic.project.root / "out").exists()
    clinic.release(clinic.use(action))


@pytest.mark.parametrize("action", ACTIONS)
def test_another_purpose_keeps_the_person(clinic, action) -> None:
    clinic.give("ann", "bob", "cy", purpose="trial")
    clinic.withdraw("ann")
    clinic.use(action)
    assert b"secret-of-ann" in clinic.release(clinic.use(action, "care"), "care")
    assert b"secret-of-ann" in clinic.release(clinic.use(action, "trial"), "trial")
    assert clinic.catalogue.find("clinic").label == "1"


@pytest.mark.parametrize("action", ACTIONS)
def test_who_agrees_again_comes_back(clinic, action) -> None:
    clinic.withdraw("ann")
    clinic.use(action)
    clinic.give("ann")
    assert b"secret-of-ann" in clinic.release(clinic.use(action))


def test_a_register_that_stays_gives_the_same_version(clinic) -> None:
    clinic.withdraw("ann")
    first = clinic.use("query").version
    assert clinic.use("train").version == first == clinic.use("query", spec=first.spec).version
    assert first.spec == "clinic@1w1"
    clinic.withdraw("bob")
    assert clinic.use("query").version.spec == "clinic@1w2"
    assert clinic.use("query", spec="clinic@1w1").version.parents == (first.hash,)
    clinic.give("bob")
    again = clinic.use("query").version.items
    assert [(item.path, item.name) for item in again] == [(item.path, item.name) for item in first.items]


def test_versions_go_on_from_the_line_and_not_from_a_cut(clinic) -> None:
    clinic.withdraw("ann")
    clinic.use("query")
    clinic.add(ROWS + "010,20,secret-of-di\n")
    newest = clinic.catalogue.find("clinic")
    assert (newest.label, newest.parents) == ("2", (clinic.catalogue.find("clinic@1").hash,))
    assert len(people(clinic.store, clinic.use("query").version)) == 2  # di never agreed


def test_copies_and_merges_lose_the_person_too(clinic) -> None:
    whole = clinic.catalogue.find("clinic")
    cohort = copy(clinic.catalogue, whole, "cohort")
    both = merge(clinic.catalogue, [whole, cohort], "both")
    clinic.withdraw("ann")
    for version in (cohort, both):
        used = clinic.use("export", spec=version.spec)
        assert b"of-ann" not in clinic.release(used, version.dataset)
        assert used.populations == ("patients",)
        assert used.datasets == (("clinic", used.version.hash),)  # the policy does not name the others


def test_a_cut_of_a_retired_version_is_retired(clinic) -> None:
    clinic.withdraw("ann")
    cut = clinic.use("query").version
    clinic.catalogue.retire(clinic.catalogue.find("clinic@1"), "wrong")
    for spec in ("clinic", "clinic@1", cut.spec):
        with pytest.raises(PolicyRefused, match="retired"):
            clinic.use("query", spec=spec)


def test_where_nobody_agrees_nobody_is_used(clinic) -> None:
    """It is not refused: that would tell that there is nobody else in it."""
    clinic.withdraw("ann", "bob", "cy")
    used = clinic.use("query")
    assert len(table(used.store, used.version)) == 0


def refusals(clinic: Clinic, action: str) -> list[str]:
    """The words of every refusal, in one story."""
    texts = []
    old = clinic.use(action)
    for purpose, spec in (("billing", "clinic"), ("reading", "clinic"), ("anything", "clinic@1")):
        with pytest.raises(PolicyRefused) as refused:
            clinic.use(action, purpose, spec)
        texts.append(str(refused.value))
    with pytest.raises(PolicyRefused) as refused:
        clinic.release(old)
    texts.append(str(refused.value))
    clinic.use(action)
    clinic.add(ROWS.replace("41", "43"))
    clinic.catalogue.retire(clinic.catalogue.find("clinic@1"), "wrong")
    clinic.catalogue.retire(clinic.catalogue.find("clinic@2"), "wrong")
    with pytest.raises(PolicyRefused) as refused:
        clinic.use(action)
    return [*texts, str(refused.value)]


@pytest.mark.parametrize("action", ACTIONS)
def test_refusals_read_the_same_whether_or_not_the_person_is_in_the_data(tmp_path, action) -> None:
    told = []
    for name in ("with", "without"):
        kept = "\n".join(line for line in ROWS.splitlines() if name == "with" or "ann" not in line) + "\n"
        clinic = Clinic(tmp_path / name, kept)
        clinic.ids.setdefault("ann", "0" * 32)
        clinic.give("ann", "bob", "cy")
        told.append(withdrawing(clinic, action))
    assert told[0] == told[1]


def withdrawing(clinic: Clinic, action: str) -> list[str]:
    real = clinic.use

    def once(*args: str) -> Use:  # the first use is planned before the withdrawal
        used = real(*args)
        if clinic.use is once:
            clinic.use = real
            clinic.withdraw("ann")
        return used

    clinic.use = once
    return refusals(clinic, action)
