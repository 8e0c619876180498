"""Blocks, several populations at once, versions cut for a purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core.accounting import Totals
from sfumato.core.event import Gaussian, Laplace
from sfumato.core.gate import Plan
from sfumato.core.numbers import brief
from sfumato.core.project import Project
from sfumato.report.activity import releases_of
from sfumato.report.collect import collect
from sfumato.report.page import render
from sfumato.report.sources import Sources
from sfumato.report.verify import check, read

POLICY = """
[project]
name = "Two wards"
[purposes.study]
lawful_basis = "consent"
actions = ["export", "query"]
[purposes.care]
lawful_basis = "public task"
actions = ["query"]
[populations.patients]
unit = "patient"
epsilon = 4
delta = 1e-6
blocks = "hash 3"
[populations.staff]
unit = "person"
epsilon = 2
delta = 1e-6
[datasets.visits]
keep = ["age"]
unit = "patient"
population = "patients"
purposes = ["study"]
partition = "subject"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    Project.init(tmp_path).ledger.close()
    (tmp_path / "sfumato.toml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def plan(**fields) -> Plan:
    own = {"action": "query", "mechanism": "counts", "guarantee": "proven", "statement": "one patient"}
    own |= {"purpose": "care", "population": "patients", "share": "all", "event": Gaussian(30)}
    return Plan(**(own | fields))


def report(project: Project) -> dict:
    path = project.root / "page.html"
    sources = Sources.now(project)
    path.write_text(render(collect(sources)))
    sources.close()
    check(project, path)
    return read(path)[1]


def test_a_release_that_several_accounts_pay_is_one(project: Project) -> None:
    gate = project.gate()
    with gate.open(plan(also=(("staff", "all"),))) as permit:
        permit.entropy.bytes(8)
        receipt = permit.settle(event=Gaussian(60))
    with gate.open(plan(blocks=("h001",), event=Laplace(20))) as permit:
        permit.entropy.bytes(8)
        permit.settle()
    with pytest.raises(KeyboardInterrupt), gate.open(plan()):
        raise KeyboardInterrupt
    gate.open(plan(population="staff", event=Gaussian(50)))
    data = report(project)

    assert data["releases"]["count"] == 4
    assert data["releases"]["by_state"] == {"released": 2, "taken back": 1, "unfinished": 1}
    left, void, block, first = data["releases"]["newest"]
    assert [len(one["charges"]) for one in (left, void, block, first)] == [1, 3, 1, 4]
    assert first["receipt"] == receipt.digest
    assert first["receipt_kept"]  # its file is named after the last of its rows
    assert first["event"] == "Gaussian noise, multiplier 60"
    assert first["reserved"] == "Gaussian noise, multiplier 30"
    assert [one["share"] for one in first["charges"]] == [
        "patients#h000/all",
        "patients#h001/all",
        "patients#h002/all",
        "staff/all",
    ]
    assert {one["epsilon"] for one in void["charges"]} == {"0"}
    assert block["charges"][0]["epsilon"] == "0.05"

    ledger = project.book()
    shown = {(one["population"], one["block"]): one for one in data["shares"]}
    for one in ledger.balances():
        population, _, block_name = one.population.partition("#")
        assert shown[population, block_name]["spent_epsilon"] == brief(one.spent_epsilon)
    assert [key for key, one in shown.items() if one["template"]] == [("patients", "")]
    assert {one["name"]: one["blocks"] for one in data["populations"]} == {"patients": "hash 3", "staff": ""}
    rows = list(ledger.entries())
    for release in releases_of(rows):  # by hand: what each account's totals rose by
        for row in release.charged:
            end = release.ends.get(row.seq)
            before = next(
                (r.body["after"] for r in reversed(rows[: row.seq - 1]) if r.share == row.share), None
            )
            assert before is not None
            if end is not None and end.kind == "void":
                assert end.body["after"] == before
            else:
                rise = Totals.from_data(row.body["charge"])
                assert Totals.from_data(before).plus(rise) == Totals.from_data(row.body["after"])
    ledger.close()
    text = (project.root / "page.html").read_text()
    assert "patients / all (block h001)" in text
    assert "in each block" in text
    assert "Less than was reserved" in text


def test_a_block_that_was_never_charged_is_whole(project: Project) -> None:
    with project.gate().open(plan(blocks=("h002",))) as permit:
        permit.entropy.bytes(8)
        permit.settle()
    data = report(project)
    assert {one["block"] for one in data["shares"] if one["population"] == "patients"} == {"", "h002"}
    page = (project.root / "page.html").read_text()
    assert "until then all of it is left" in page
    assert page.count('class="bar"') == 2  # the template is no budget of anybody


def test_a_version_cut_for_a_purpose_is_reported(project: Project, capsys) -> None:
    (project.root / "visits.csv").write_text("patient,age\n007,40\n008,41\n009,42\n")
    for line in (
        "data add visits visits.csv",
        "consent give 007 --purpose study --population patients",
        "data export visits -o out --purpose study",
        "data add visits visits.csv",
        "report -o made.html",
        "report --verify made.html",
        "report --subject 007 --population patients -o one.html",
        "report --verify one.html",
    ):
        main(line.split())
    data = read(project.root / "made.html")[1]
    assert [one["version"] for one in data["versions"]][:2] == ["visits@1", "visits@1w1"]
    mine = read(project.root / "one.html")[1]["subject"]
    assert {one["version"] for one in mine["versions"] if one["state"].startswith("holds data")} >= {
        "visits@1",
        "visits@1w1",
    }
    assert [one["certain"] for one in mine["releases"]] == [True]


def test_an_erased_person_is_told_so(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    (project.root / "visits.csv").write_text("patient,age\n007,40\n008,41\n009,42\n")
    for line in (
        f"vault init --wrapping file --set path={tmp_path_factory.mktemp('stick')}/master.key",
        "data add visits visits.csv",
        "report --subject 007 --population patients -o before.html",
        "vault erase 007 --population patients --yes",
        "report --subject 007 --population patients -o after.html",
        "report --subject 008 --population patients -o other.html",
        "report -o all.html",
        "report --verify before.html",
        "report --verify after.html",
        "report --verify other.html",
        "report --verify all.html",
    ):
        main(line.split())
    before, after, other = (
        read(project.root / f"{name}.html")[1]["subject"] for name in ("before", "after", "other")
    )
    assert [one["state"] for one in before["versions"]] == ["holds data of this person"]
    assert [one["state"] for one in after["versions"]] == ["held data of this person, which were erased"]
    assert [one["state"] for one in other["versions"]] == ["holds data of this person"]
    assert (len(before["erasures"]), len(after["erasures"]), len(other["erasures"])) == (0, 1, 0)
    assert after["datasets"] == []
    page = (project.root / "all.html").read_text()
    assert after["pseudonyms"][0] not in page
    assert "1 in all" in page
