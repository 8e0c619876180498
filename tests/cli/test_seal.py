"""`sfumato redact --seal`, `sfumato unseal` and `sfumato seal`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli.main import main
from sfumato.core.project import Project

POLICY = """
[[redact.zones]]
name = "board"
points = [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]
[[redact.zones]]
name = "desk"
points = [[0.6, 0.6], [1.0, 0.6], [1.0, 1.0], [0.6, 1.0]]
[purposes.teaching]
actions = ["redact"]
[purposes.court]
lawful_basis = "legal obligation"
actions = ["restore"]
"""


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Path:
    root = tmp_path / "project"
    Project.init(root, name="demo").close()
    with (root / "sfumato.toml").open("a") as file:
        file.write(POLICY)
    monkeypatch.chdir(root)
    assert run("vault", "init", "--wrapping", "file", "--set", "path=../out/master.key") == 0
    rng = np.random.default_rng(4)
    Image.fromarray(rng.integers(0, 255, (80, 120, 3), np.uint8)).save("room.png")
    capsys.readouterr()
    return root


def redact(*more: str) -> int:
    return run("redact", "room.png", "-o", "safe.png", "--purpose", "teaching", "--no-report", *more)


def test_the_whole_way(folder: Path, capsys) -> None:
    assert redact("--seal") == 0
    assert "Sealed: the originals of 1 file" in capsys.readouterr().out
    assert run("seal", "show", "safe.png", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["label"] for one in shown["tracks"]] == ["zone board", "zone desk"]
    numbers = [str(one["track"]) for one in shown["tracks"]]
    way = ("--purpose", "court", "--reason", "order 12/3")
    assert run("unseal", "safe.png", "--to", "open.png", "--track", numbers[0], "--json", *way) == 0
    done = json.loads(capsys.readouterr().out)
    source, back = np.array(Image.open("room.png")), np.array(Image.open("open.png"))
    assert (source[:40, :60] == back[:40, :60]).all()
    assert (source[48:, 72:] != back[48:, 72:]).any()
    assert run("ledger", "show") == 0
    assert "order 12/3" in capsys.readouterr().out
    assert run("receipt", "verify", done["receipt"], "open.png") == 0
    assert run("unseal", "safe.png", "--to", "open.png", *way) == 2
    assert "exists already" in capsys.readouterr().err
    assert run("seal", "destroy", "safe.png", "--track", numbers[0], "--yes") == 0
    assert run("seal", "show", "safe.png") == 0
    assert "board" not in capsys.readouterr().out.partition("CLASS")[2]
    assert run("seal", "destroy", "safe.png") == 2
    assert run("seal", "destroy", "safe.png", "--yes", "--json") == 0
    assert run("unseal", "safe.png", "--to", "again.png", *way) == 5
    assert run("ledger", "verify") == 0


def test_it_is_off_unless_asked_for(folder: Path, capsys) -> None:
    assert redact("--seal-subject", "patient-1") == 2
    assert "--seal" in capsys.readouterr().err
    assert redact("--json") == 0
    assert json.loads(capsys.readouterr().out)["sealed"] is None
    assert not (folder / ".sfumato" / "sealed").exists()


def test_erasing_the_person_ends_it(folder: Path, capsys) -> None:
    assert redact("--seal", "--seal-subject", "patient-1") == 0
    assert run("vault", "erase", "patient-1", "--yes") == 0
    assert run("unseal", "safe.png", "--to", "x.png", "--purpose", "court", "--reason", "order 1") == 1
    assert "erased" in capsys.readouterr().err


def test_without_a_project_it_says_what_to_do(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("a.png")
    assert run("redact", "a.png", "-o", "b.png", "--seal") == 2
    assert "sfumato vault init" in capsys.readouterr().err
    assert not Path("b.png").exists()
