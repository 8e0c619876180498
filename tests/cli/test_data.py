"""`sfumato data`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core.project import Project

POLICY = """
[purposes.research]
actions = ["export"]
[populations.patients]
unit = "patient"
epsilon = 1
[datasets.clinic]
keep = ["age", "diagnosis"]
unit = "patient"
population = "patients"
purposes = ["research"]
quasi_identifiers = ["age"]
sensitive = ["diagnosis"]
[datasets.clinic.generalise]
age = "band 10"
"""


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Project.init(tmp_path, name="demo").ledger.close()
    with (tmp_path / "sfumato.toml").open("a") as file:
        file.write(POLICY)
    (tmp_path / "v.csv").write_text(
        "patient,name,age,diagnosis\n007,Ann,40,flu\n008,Bob,41,cold\n009,Cy,77,flu\n"
    )
    return tmp_path


def answer(capsys, *arguments: str) -> dict:
    assert run("data", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_explain_tells_and_writes_nothing(clinic, capsys) -> None:
    before = sorted(clinic.rglob("*"))
    assert run("data", "add", "clinic", "v.csv", "--explain") == 0
    out = capsys.readouterr().out
    assert "dropped  name: not on the keep list of datasets.clinic" in out
    assert "dropped  patient: the privacy unit: replaced by a keyed pseudonym" in out
    assert "kept     age; would be generalised: band 10" in out
    assert "tested: k = 1" in out
    assert "tested: l = 1, t = 0.333 for diagnosis" in out
    assert "anonym" not in out
    assert answer(capsys, "add", "clinic", "v.csv", "--explain")["written"] is False
    assert sorted(clinic.rglob("*")) == before


def test_from_adding_to_retiring(clinic, capsys) -> None:
    assert run("data", "list") == 0
    assert "No dataset yet" in capsys.readouterr().out
    first = answer(capsys, "add", "clinic", "v.csv")
    assert (first["version"], first["rows"], first["new"], first["failures"]) == ("1", 3, True, [])
    assert answer(capsys, "add", "clinic", "v.csv")["new"] is False
    (clinic / "v.csv").write_text("patient,name,age,diagnosis\n007,Ann,40,flu\n010,Di,41,cold\n")
    assert run("data", "add", "clinic", "v.csv") == 0
    assert "Added clinic@2: 2 rows, 2 subjects" in capsys.readouterr().out
    assert answer(capsys, "list")["datasets"][0]["version"] == "2"
    assert len(answer(capsys, "versions", "clinic")["versions"]) == 2
    shown = answer(capsys, "show", f"clinic@{first['hash'][:10]}")
    assert shown["facts"]["kept"] == ["age", "diagnosis"]
    changes = answer(capsys, "diff", "clinic@1", "clinic@2")["rows"]
    assert (changes["added"], changes["removed"], changes["changed"]) == (1, 2, 0)
    assert answer(capsys, "verify")["verified"] is True
    out = answer(capsys, "export", "clinic", "-o", "out", "--purpose", "research")
    assert out["guarantee"]["type"] == "heuristic"
    assert run("receipt", "verify", "out/receipt.json", "out", "--ledger") == 0
    capsys.readouterr()
    assert answer(capsys, "retire", "clinic@1", "--reason", "wrong file")["retired"] == "wrong file"
    for command in (("list",), ("versions", "clinic"), ("show", "clinic@1"), ("show", "clinic"),
                    ("diff", "clinic@1", "clinic@2"), ("diff", "clinic", "clinic"), ("verify",)):  # fmt: skip
        assert run("data", *command) == 0
        text = capsys.readouterr().out
        assert text
        assert "Traceback" not in text
    assert run("data", "export", "clinic@1", "-o", "old", "--purpose", "research") == 3
    assert "retired (wrong file)" in capsys.readouterr().err


def test_exit_codes(clinic, capsys) -> None:
    assert run("data", "add", "clinic", "absent.csv") == 2
    assert run("data", "add", "clinic", "v.csv", "--keep", "name") == 3
    assert run("data", "add", "other", "v.csv", "--keep", "age") == 2
    assert "--unit" in capsys.readouterr().err
    assert run("data", "show", "clinic") == 2
    assert run("data", "add", "clinic", "v.csv") == 0
    assert run("data", "export", "clinic", "-o", "out") == 3
    assert "--purpose" in capsys.readouterr().err
    assert run("data", "retire", "clinic") == 2
    stored = next(path for path in (clinic / ".sfumato" / "objects").glob("??/*"))
    stored.chmod(0o600)
    stored.write_bytes(b"x")
    assert run("data", "verify") == 5
    assert "do not verify" in capsys.readouterr().err
    assert run("data", "diff", "clinic@1", "clinic@1") == 5


def test_a_batch_with_a_bad_picture_ends_with_1(clinic, capsys) -> None:
    from PIL import Image

    (clinic / "photos" / "ann").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(clinic / "photos" / "ann" / "1.jpg")
    (clinic / "photos" / "ann" / "2.jpg").write_bytes(b"\xff\xd8\xffgarbage")
    assert run("data", "add", "gate", "photos", "--unit", "folder", "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in data["failures"]] == ["ann/2.jpg"]
    assert data["items_count"] == 1


def test_outside_a_project(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("data", "list") == 2
    assert "sfumato init" in capsys.readouterr().err


def test_an_export_says_that_people_were_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init") == 0
    (tmp_path / "sfumato.toml").write_text(
        '[project]\nname = "x"\n[purposes.research]\nlawful_basis = "consent"\nactions = ["export"]\n'
        '[datasets.clinic]\nkeep = ["age"]\nunit = "patient"\npurposes = ["research"]\n'
    )
    (tmp_path / "visits.csv").write_text("patient,age\nann,41\nbob,66\n")
    assert run("data", "add", "clinic", "visits.csv") == 0
    for who in ("ann", "bob"):
        assert run("consent", "give", who, "--purpose", "research") == 0
    assert run("consent", "withdraw", "bob", "--purpose", "research") == 0
    capsys.readouterr()
    assert run("data", "export", "clinic", "-o", "out", "--format", "csv", "--purpose", "research") == 0
    assert "1 person was left out" in capsys.readouterr().err
    assert "66" not in (tmp_path / "out" / "rows.csv").read_text()
