"""`sfumato models`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from sfumato.cli.main import COMMANDS, main
from sfumato.cli.models import command
from sfumato.vision import models


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def invoke(*words):
    return CliRunner().invoke(command, list(words))


def end(capsys, *words):
    """Run the whole command line; return exit code, standard output and standard error."""
    code = 0
    try:
        main(["models", *words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_tells_what_it_is_and_gives_examples():
    shown = invoke("--help").output
    assert COMMANDS["models"][1] in shown
    assert "AGPL-3.0" in shown
    for name, sub in command.commands.items():
        assert "Example" in invoke(name, "--help").output, name
        assert sub.help


def test_list_names_every_model_and_its_state(cache):
    shown = invoke("list").output
    for one in models.REGISTRY:
        assert one.name in shown
    assert "installed" in shown
    assert "missing" in shown
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json").output)["models"]}
    assert set(rows) == {one.name for one in models.REGISTRY}
    assert rows["centerface"]["state"] == "installed"
    assert rows["yolo26n"]["licence"] == "AGPL-3.0"
    assert "person" in rows["yolo26n"]["finds"]


def test_list_marks_a_damaged_file(cache):
    cache.mkdir()
    (cache / "yolo26n.onnx").write_bytes(b"damaged")
    rows = {row["name"]: row["state"] for row in json.loads(invoke("list", "--json").output)["models"]}
    assert rows["yolo26n"] == "damaged"


def test_path_prints_one_path(cache, capsys):
    code, out, _ = end(capsys, "path", "centerface")
    assert (code, out.strip()) == (0, str(models.path("centerface")))
    code, out, _ = end(capsys, "path", "centerface", "--json")
    assert json.loads(out)["sha256"] == models.entry("centerface").sha256


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["path", "yolo26n"], 2, "sfumato models pull yolo26n"),
        (["path", "yolo26"], 2, "did you mean"),
        (["pull", "yolo26nn"], 2, "did you mean 'yolo26n'"),
        (["pull", "yolo26n", "--url", "file:///etc/passwd"], 2, "not an http or https address"),
        (["pull", "yolo26n", "--url", "http://127.0.0.1:9/x", "--timeout", "2"], 1, "Without a network"),
    ],
)
def test_refusals_are_one_line_with_the_way_out(cache, capsys, monkeypatch, words, code, says):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    got, out, err = end(capsys, *words)
    assert (got, out) == (code, "")
    assert says in err
    assert err.count("\n") == 1


def test_verify(cache, capsys):
    code, out, _ = end(capsys, "verify")
    assert code == 0
    assert "centerface: installed" in out
    cache.mkdir()
    (cache / "yolo26n.onnx").write_bytes(b"damaged")
    code, out, err = end(capsys, "verify", "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert "sfumato models pull yolo26n --force" in err
    code, _, err = end(capsys, "verify", "yunet-2023mar")
    assert code == 1
    assert "sfumato models pull yunet-2023mar" in err
    assert end(capsys, "verify", "centerface")[0] == 0


def test_an_embedded_model_is_pulled_from_nowhere(cache, capsys):
    code, out, _ = end(capsys, "pull", "centerface")
    assert (code, out.strip()) == (0, str(models.path("centerface")))
    assert not cache.exists()


def test_the_command_is_light_to_import():
    heavy = ("cv2", "onnxruntime", "rich", "numpy", "urllib.request")
    code = f"import sys, sfumato.cli.models; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
