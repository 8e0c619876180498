"""`sfumato roles`, `consent`, `token` and `ledger raise|approve`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core import identity
from sfumato.core.errors import PolicyRefused
from sfumato.core.project import Project

POLICY = """
[project]
name = "clinic"
[purposes.research]
lawful_basis = "consent"
actions = ["query", "redact"]
[populations.patients]
unit = "patient"
epsilon = 1
"""
ROLES = """
[roles]
owner = ["maria", "jan"]
analyst = ["eva", "token:ci"]
auditor = ["ben"]
"""
TODAY = str(datetime.now(UTC).date())


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Project.init(tmp_path).ledger.close()
    (tmp_path / "sfumato.toml").write_text(POLICY)
    return tmp_path


def act_as(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(identity, "local_user", lambda: (f"uid:{sum(name.encode())}", name))


def test_roles_are_printed(root: Path, capsys, monkeypatch) -> None:
    assert run("roles") == 0
    out = capsys.readouterr().out
    assert "whoever can open it is its owner" in out
    assert out.splitlines()[0].split()[:5] == ["right", "owner", "curator", "analyst", "auditor"]
    (root / "sfumato.toml").write_text(POLICY + ROLES)
    act_as(monkeypatch, "eva")
    assert run("roles", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["declared"], data["you"]) == (True, "analyst")
    assert "raise" in data["roles"]["owner"]
    act_as(monkeypatch, "stranger")
    assert run("roles") == 0
    assert "does not name you" in capsys.readouterr().out


def test_roles_are_printed_anywhere(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("roles") == 0
    assert "no project here" in capsys.readouterr().out


def test_consent_from_the_command_line(root: Path, capsys) -> None:
    assert run("consent", "show") == 0
    assert "Nobody's consent" in capsys.readouterr().out
    assert run("consent", "give", "Ann Lee", "--purpose", "research", "--source", "form 7") == 0
    assert "stands" in capsys.readouterr().out
    (root / "in.csv").write_text(f"subject,purpose,given,withdrawn\nBob Ray,research,{TODAY},\n")
    assert run("consent", "import", "in.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"new": 1}
    assert run("consent", "import", "in.csv") == 0
    assert run("consent", "withdraw", "Ann Lee", "--purpose", "research", "--json") == 0
    text = capsys.readouterr().out.partition("\n")[2]
    assert json.loads(text) == {"purpose": "research", "consent": False}
    assert run("consent", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"purposes": {"research": {"given": 1, "withdrawn": 1}}}
    assert run("consent", "show") == 0
    assert run("consent", "show", "Ann Lee") == 0
    assert "form 7" in capsys.readouterr().out
    assert run("consent", "show", "Nobody") == 0
    assert run("consent", "show", "Ann Lee", "--json") == 0
    assert [row["kind"] for row in json.loads(capsys.readouterr().out.partition("\n")[2])["entries"]] == [
        "given",
        "withdrawn",
    ]


def test_no_name_is_printed_or_kept(root: Path, capsys) -> None:
    head = "subject,purpose,given,withdrawn\n"
    (root / "in.csv").write_text(f"{head}Annabelle,research,{TODAY},soon\n")
    (root / "swapped.csv").write_text(f"{head}research,Annabelle,{TODAY},\n")
    (root / "shifted.csv").write_text(f"{head}7,research,Annabelle,\n")
    for arguments in (
        ("give", "Annabelle", "--purpose", "research"),
        ("give", "Annabelle", "--purpose", "reserch"),
        ("give", "Annabelle", "--purpose", "research", "--on", "2999-01-01"),
        ("withdraw", "Annabelle", "--purpose", "research"),
        ("import", "in.csv"),
        ("import", "swapped.csv"),
        ("import", "shifted.csv"),
        ("show",),
        ("show", "Annabelle"),
    ):
        run("consent", *arguments)
    printed = capsys.readouterr()
    assert "Annabelle" not in printed.out + printed.err
    for path in (root / ".sfumato").rglob("*"):
        assert path.is_dir() or b"Annabelle" not in path.read_bytes(), path


def test_consent_needs_a_declared_purpose_and_a_past_day(root: Path, capsys) -> None:
    assert run("consent", "give", "Ann", "--purpose", "reserch") == 2
    assert "did you mean 'research'" in capsys.readouterr().err
    assert run("consent", "give", "Ann", "--purpose", "research", "--on", "2999-01-01") == 2
    assert run("consent", "give", "Ann", "--purpose", "research", "--on", "soon") == 2


def test_tokens_from_the_command_line(root: Path, capsys, monkeypatch) -> None:
    assert run("token", "list") == 0
    assert "No tokens" in capsys.readouterr().out
    assert run("token", "create", "ci", "--role", "analyst", "--purpose", "research", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert Project(root).tokens.authenticate(made["token"], Project(root).policy).role == "analyst"
    assert run("token", "create", "app", "--role", "auditor") == 0
    text = capsys.readouterr().out.strip()
    assert text.startswith("sft_")
    assert run("token", "list") == 0
    assert run("token", "list", "--json") == 0
    out = capsys.readouterr().out
    assert text not in out
    assert "argon2" not in out
    for wrong in (["--role", "owner"], ["--role", "analist"], ["--role", "analyst", "--purpose", "reserch"]):
        assert run("token", "create", "x", *wrong) == 2
    assert run("token", "create", "x", "--role", "analyst", "--action", "qeury") == 2
    assert run("token", "revoke", "ci") == 0
    assert run("token", "revoke", "ci") == 2
    (root / "sfumato.toml").write_text(POLICY + ROLES)
    act_as(monkeypatch, "maria")
    capsys.readouterr()
    assert run("token", "create", "ci", "--role", "analyst") == 0
    assert 'add "token:ci" to roles.analyst' in capsys.readouterr().err


def test_two_owners_on_the_command_line(root: Path, capsys, monkeypatch) -> None:
    (root / "sfumato.toml").write_text(POLICY + ROLES)
    act_as(monkeypatch, "maria")
    assert run("ledger", "show") == 0
    (root / "sfumato.toml").write_text(POLICY.replace("epsilon = 1", "epsilon = 2") + ROLES)
    assert run("ledger", "approve", "patients") == 2
    assert run("ledger", "raise", "patients", "--reason", "board decision 12") == 0
    assert "sfumato ledger approve patients" in capsys.readouterr().out
    act_as(monkeypatch, "jan")
    assert run("ledger", "show") == 0  # jan reads what is proposed
    said = capsys.readouterr()
    assert "patients: epsilon 2, board decision 12" in said.out
    assert "Nothing is released until" in said.err
    with pytest.raises(PolicyRefused):
        Project(root).gate()
    act_as(monkeypatch, "maria")
    assert run("ledger", "approve", "patients") == 3
    assert "another owner must" in capsys.readouterr().err
    act_as(monkeypatch, "jan")
    assert run("ledger", "approve", "patients") == 0
    assert "board decision 12" in capsys.readouterr().out
    assert run("ledger", "show") == 0
    assert "proposal" in capsys.readouterr().out
    assert run("ledger", "verify") == 0


@pytest.mark.parametrize(
    ("name", "denied"),
    [
        ("eva", ["consent give Ann --purpose research", "token revoke ci", "ledger approve patients"]),
        ("ben", ["consent withdraw Ann --purpose research", "token create x --role auditor"]),
        (
            "stranger",
            ["ledger show", "ledger plan", "consent show", "token list", "ledger raise patients --reason x"],
        ),
    ],
)
def test_roles_hold_on_the_command_line(
    root: Path, capsys, monkeypatch, name: str, denied: list[str]
) -> None:
    (root / "sfumato.toml").write_text(POLICY + ROLES)
    act_as(monkeypatch, name)
    for line in denied:
        assert run(*line.split()) == 3, line
        assert "[roles] in sfumato.toml" in capsys.readouterr().err
    allowed = 0 if name != "stranger" else 3
    assert run("ledger", "show") == allowed
    assert run("consent", "show") == allowed
    assert run("ledger", "verify") == 0  # integrity is everybody's


def test_every_command_here_prints_json_on_request(root: Path, capsys, monkeypatch) -> None:
    (root / "sfumato.toml").write_text(POLICY + ROLES)
    act_as(monkeypatch, "maria")
    run("ledger", "show")
    run("token", "create", "ci", "--role", "analyst")
    (root / "sfumato.toml").write_text(POLICY.replace("epsilon = 1", "epsilon = 2") + ROLES)
    capsys.readouterr()
    assert run("token", "revoke", "ci", "--json") == 0
    assert json.loads(capsys.readouterr().out)["revoked"]
    assert run("ledger", "raise", "patients", "--reason", "board", "--json") == 0
    proposed = json.loads(capsys.readouterr().out)
    assert (proposed["population"], proposed["epsilon"], proposed["raised"]) == ("patients", "2", False)
    act_as(monkeypatch, "jan")
    assert run("ledger", "approve", "patients", "--row", "1") == 2
    assert f"row {proposed['row']}" in capsys.readouterr().err
    assert run("ledger", "approve", "patients", "--row", str(proposed["row"]), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {**proposed, "raised": True}


def test_a_raise_is_json_without_roles_too(root: Path, capsys) -> None:
    run("ledger", "show")
    (root / "sfumato.toml").write_text(POLICY.replace("epsilon = 1", "epsilon = 2"))
    capsys.readouterr()
    assert run("ledger", "raise", "patients", "--reason", "board", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["row"], said["epsilon"], said["raised"]) == (None, "2", True)


def test_consent_says_where_it_decides_nothing(root: Path, capsys) -> None:
    """An officer who records a withdrawal must not believe that the use has ended."""
    (root / "sfumato.toml").write_text(POLICY + '[purposes.care]\nlawful_basis = "contract"\n')
    assert run("consent", "withdraw", "Ann", "--purpose", "care", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"purpose": "care", "consent": False}
    assert "'care' rests on 'contract'" in said.err
    assert run("consent", "withdraw", "Anm", "--purpose", "research") == 0
    assert "no consent of this subject" in capsys.readouterr().err  # a mistyped id, perhaps
    run("consent", "give", "Ann", "--purpose", "research")
    run("consent", "withdraw", "Ann", "--purpose", "research")
    assert capsys.readouterr().err == ""


def test_a_refused_redaction_shows_in_the_ledger(root: Path, capsys) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(root / "a.png")
    assert run("redact", "a.png", "-o", "b.png", "--purpose", "research") == 3
    assert "rests on consent" in capsys.readouterr().err
    assert not (root / "b.png").exists()
    assert run("ledger", "show") == 0
    assert "redact, for research, by purposes.research.lawful_basis" in capsys.readouterr().out


def test_a_proof_is_checked_without_the_project(root: Path, tmp_path_factory, capsys, monkeypatch) -> None:
    assert run("ledger", "prove", "1") == 0
    printed = capsys.readouterr().out
    data = json.loads(printed)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    Path("proof.json").write_text(printed)
    assert run("ledger", "check-proof", "proof.json", "--root", data["root"]) == 0
    assert "Row 1" in capsys.readouterr().out
    assert run("ledger", "check-proof", "proof.json", "--root", data["root"], "--json") == 0
    assert json.loads(capsys.readouterr().out)["proved"] is True
    assert run("ledger", "check-proof", "proof.json", "--root", "0" * 64) == 5
    assert run("ledger", "check-proof", "proof.json", "--root", "x") == 5
    Path("proof.json").write_text(json.dumps(data | {"row": "0" * 64}))
    assert run("ledger", "check-proof", "proof.json", "--root", data["root"]) == 5
    for broken in ("{", "[]", "{}"):
        Path("proof.json").write_text(broken)
        assert run("ledger", "check-proof", "proof.json", "--root", data["root"]) == 2
