"""A clinic with everything in it, made through the same calls that people use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core import identity, raising
from sfumato.core.errors import BudgetSpent, PolicyRefused
from sfumato.core.event import Gaussian, Laplace, PoissonSampled, Repeated
from sfumato.core.gate import Plan
from sfumato.core.project import Project
from sfumato.data.erasure import plan_for

EVIL = '<script>alert("x")</script>'
TURNED = "قسم الطوارئ ‮ abc"

POLICY = """
[project]
name = "St. Ada <Clinic> & \\"Co\\""
description = "Scans and visits, for care and for research; Grüße, 你好"
controller = "St. Ada Hospital Trust"
contact = "privacy@st-ada.example"

[purposes.research]
description = 'Does the new scanner find more? <script>alert("x")</script>'
lawful_basis = "consent"
actions = ["query", "train", "export"]
expires = 2099-12-31
recipients = ["the ethics board", "University of Example"]
transfers = "none"

[purposes.care]
description = "قسم الطوارئ ‮ abc"
lawful_basis = "public task"
actions = ["redact", "export", "query"]
expires = 2020-01-31

[purposes.planning]
lawful_basis = "legitimate interests"
actions = ["redact", "query"]
compatible_with = ["care"]

[populations.patients]
unit = "patient"
epsilon = BUDGET
delta = 1e-6
[populations.patients.shares.research]
epsilon = 2
delta = 5e-7
[populations.patients.shares.care]
kind = "sum"
epsilon = 1
delta = 4e-7

[populations.staff]
unit = "person"
epsilon = 1
delta = 1e-7

[datasets.visits]
keep = ["born", "postcode", "age", "diagnosis"]
unit = "patient"
population = "patients"
purposes = ["care", "research"]
quasi_identifiers = ["born", "postcode", "age"]
sensitive = ["diagnosis"]
categories = ["health", "demographics", "identifiers"]
source = "the clinic's own visits"
[datasets.visits.generalise]
born = "month"
postcode = "prefix 2"
age = "band 10"

[datasets.rota]
keep = ["shift"]
unit = "name"
population = "staff"
purposes = ["planning"]

[retention]
days = 3650
[retention.datasets]
rota = 0

[roles]
owner = ["maria", "jan"]
curator = ["cleo"]
analyst = ["eva"]
"""

VISITS = """\
patient,name,born,postcode,age,diagnosis
007,Ann Example,1984-05-17,01234,40,flu
008,Bob Example,1984-05-01,01299,41,cold
007,Ann Example,1984-05-17,01234,40,cold
009,Cy Example,1950-01-01,99999,74,flu
"""


@dataclass
class Clinic:
    root: Path
    patch: pytest.MonkeyPatch

    def act(self, name: str) -> None:
        self.patch.setattr(identity, "local_user", lambda: (f"uid:{1000 + sum(name.encode())}", name))

    def run(self, *arguments: str) -> int:
        try:
            main(list(arguments))
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    def project(self) -> Project:
        return Project(self.root)

    def release(
        self, event, *, mechanism="counts", share="research", purpose="planning", delta=0, end="settle"
    ):
        project = self.project()
        self.act("eva")
        plan = Plan(
            action="query",
            mechanism=mechanism,
            guarantee="proven",
            statement=f"(epsilon, delta)-differentially private for one patient, by {mechanism}",
            limits=("nothing about what was known before", EVIL),
            purpose=purpose,
            event=event,
            population="patients",
            share=share,
            delta=delta,
        )
        gate = project.gate()
        try:
            if end == "void":
                with gate.open(plan):
                    raise KeyboardInterrupt
            permit = gate.open(plan)
            if end == "settle":
                with permit:
                    permit.entropy.bytes(8)
                    return permit.settle()
        except KeyboardInterrupt:
            pass
        finally:
            project.close()

    def fill(self) -> None:
        self.act("maria")
        (self.root / "visits.csv").write_text(VISITS)
        (self.root / "more.csv").write_text(VISITS + "010,Di,1971-02-02,55555,54,cold\n")
        (self.root / "rota.csv").write_text("name,shift\nNurse Ratched,night\nNurse Joy,day\n")
        assert self.run("data", "add", "visits", "visits.csv") == 0
        assert self.run("data", "add", "visits", "more.csv") == 0
        assert self.run("data", "add", "rota", "rota.csv") == 0
        assert self.run("data", "retire", "visits@1", "--reason", "Ann Example asked") == 0
        for person, purpose in (("007", "research"), ("008", "research"), ("009", "care")):
            assert (
                self.run(
                    "consent",
                    "give",
                    person,
                    "--purpose",
                    purpose,
                    "--source",
                    "form Ann",
                    "--population",
                    "patients",
                )
                == 0
            )
        assert (
            self.run("consent", "withdraw", "008", "--purpose", "research", "--population", "patients") == 0
        )
        for times in range(4):
            self.release(Gaussian(20 + times))
        self.release(Laplace(20), mechanism="median")
        self.release(Repeated(PoissonSampled("0.01", Gaussian(2)), 50), mechanism="training run")
        self.release(Gaussian(30), share="care", delta="1e-7", mechanism="one plan")
        self.release(Gaussian(40), end="void")
        self.release(Gaussian(41), end="leave")
        with pytest.raises(BudgetSpent):
            self.release(Gaussian("0.1"))
        for purpose in ("care", "Ann Example's purpose"):
            with pytest.raises(PolicyRefused):
                self.release(Gaussian(40), purpose=purpose)
        self._filters()
        self._raise()

    def _filters(self) -> None:
        self.act("cleo")
        project = self.project()
        gate = project.gate()
        for action, kind in (("redact", "heuristic"), ("redact", "tested")):
            plan = Plan(
                action=action,
                mechanism="redaction",
                guarantee=kind,
                statement="faces that were found are covered",
                limits=("faces that were not found stay",),
                purpose="planning",
            )
            with gate.open(plan) as permit:
                permit.releasing()
                permit.settle()
        with gate.open(plan_for("ab" * 16)) as permit:
            permit.releasing()
            permit.settle(facts={"erased_at": "2026-01-01"})
        project.close()

    def _raise(self) -> None:
        policy = self.root / "sfumato.toml"
        policy.write_text(POLICY.replace("BUDGET", "4"))
        self.act("maria")
        raising.propose(self.project(), "patients", reason="Ann Example's board said so")
        self.act("jan")
        raising.approve(self.project(), "patients")
        self.act("maria")


@pytest.fixture(scope="module")
def _patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, _patch: pytest.MonkeyPatch) -> Clinic:
    """The clinic, filled once for a module; tests that change it copy it first."""
    root = tmp_path_factory.mktemp("clinic")
    Project.init(root).ledger.close()
    (root / "sfumato.toml").write_text(POLICY.replace("BUDGET", "3"))
    _patch.chdir(root)
    clinic = Clinic(root, _patch)
    clinic.fill()
    return clinic
