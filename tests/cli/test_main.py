"""The command line as a whole: help, exit codes, and the small commands."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sfumato.cli.main import COMMANDS, main
from sfumato.core.event import PureDP
from sfumato.core.gate import Plan
from sfumato.core.project import Project


def run(*arguments: str) -> int:
    """Run in this process; return the exit code."""
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    Project.init(tmp_path, name="demo").ledger.close()
    with (tmp_path / "sfumato.toml").open("a") as file:
        file.write('\n[populations.residents]\nunit = "person"\nepsilon = 1\ndelta = 1e-6\n')
    return Project(tmp_path)


def release(project: Project, epsilon: str = "0.25") -> Path:
    plan = Plan(
        action="redact",
        mechanism="test",
        guarantee="proven",
        statement="a test release",
        event=PureDP(epsilon),
        population="residents",
        share="all",
    )
    with project.gate().open(plan) as permit:
        permit.entropy.bytes(1)
        receipt = permit.settle()
    receipt.write(project.root / "receipt.json")
    return project.root / "receipt.json"


def _every_command() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, (module, _) in COMMANDS.items():
        command = importlib.import_module(module).command
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", item) for sub, item in command.commands.items()]
    return found


def test_the_table_of_commands_is_true() -> None:
    for name, (module, line) in COMMANDS.items():
        command = importlib.import_module(module).command
        assert command.name == name
        assert (command.help or "").splitlines()[0] == line


def test_every_command_and_option_has_help() -> None:
    for name, command in _every_command():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (name, parameter.name)


def test_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert run(name, "--help") == 0
        assert f"sfumato {name}" in capsys.readouterr().out.split("\n", 1)[1], name
    for name, command in _every_command():
        assert "Example" in (command.help or ""), name
        assert f"sfumato {name}".rstrip() in (command.help or "").partition("Example")[2], name


def test_a_mistyped_command_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("redcat") == 2
    assert "Did you mean 'redact'" in capsys.readouterr().err


def test_the_module_runs_too() -> None:
    result = subprocess.run([sys.executable, "-m", "sfumato", "--version"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "sfumato" in result.stdout


def test_init_once(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", "cameras", "--name", "city", "--json") == 0
    assert json.loads(capsys.readouterr().out)["project"] == "city"
    assert run("init", "cameras") == 2
    assert "never replaced" in capsys.readouterr().err


def test_without_a_project_the_ledger_commands_say_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("ledger", "show") == 2
    assert "sfumato init" in capsys.readouterr().err


def test_show_and_verify(project: Project, capsys) -> None:
    release(project)
    assert run("ledger", "show") == 0
    assert "0.25 of 1" in capsys.readouterr().out
    assert run("ledger", "show", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["shares"][0]["spent_epsilon"] == "0.25"
    assert run("ledger", "verify") == 0
    assert "verifies" in capsys.readouterr().out
    assert run("ledger", "verify", "--json") == 0
    assert json.loads(capsys.readouterr().out)["releases"] == 1


def test_a_tampered_ledger_ends_with_5(project: Project, capsys) -> None:
    old = (project.root / ".sfumato" / "ledger.db").read_bytes()
    release(project)
    project.ledger.close()
    (project.root / ".sfumato" / "ledger.db").write_bytes(old)
    for command in (("ledger", "verify"), ("ledger", "show")):
        assert run(*command) == 5
        assert "older" in capsys.readouterr().err


def test_receipts_verify_with_and_without_the_project(
    project: Project, tmp_path, monkeypatch, capsys
) -> None:
    path = release(project)
    assert run("receipt", "verify", str(path), "--ledger") == 0
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path.parent / "receipt-elsewhere.json"
    copy.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path.parent)
    assert run("receipt", "verify", str(copy), "--json") == 0
    capsys.readouterr()
    copy.write_text(copy.read_text().replace("a test release", "an anonymous picture"))
    assert run("receipt", "verify", str(copy)) == 5
    assert "changed after it was written" in capsys.readouterr().err


def test_a_budget_is_raised_with_a_reason_only(project: Project, capsys) -> None:
    release(project)
    project.ledger.close()
    policy = project.root / "sfumato.toml"
    policy.write_text(policy.read_text().replace("epsilon = 1\ndelta", "epsilon = 2\ndelta"))
    assert run("ledger", "show") == 3
    assert "ledger raise residents" in capsys.readouterr().err
    assert run("ledger", "raise", "residents") == 2
    assert run("ledger", "raise", "resident", "--reason", "x") == 2
    assert "did you mean 'residents'" in capsys.readouterr().err
    assert run("ledger", "raise", "residents", "--reason", "board decision 12") == 0
    assert run("ledger", "show") == 0


def test_a_broken_policy_ends_with_2(project: Project, capsys) -> None:
    (project.root / "sfumato.toml").write_text('[project]\nname = "x"\n[redcat]\n')
    assert run("ledger", "show") == 2
    assert "did you mean 'redact'" in capsys.readouterr().err
    assert run("ledger", "verify") == 0  # a broken policy keeps nobody from verifying the book
