"""`sfumato redact`: options, what goes to which stream, and exit codes."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.cli.main import main
from sfumato.core.project import Project
from sfumato.redaction.covers import CATALOGUE as COVERS
from sfumato.redaction.settings import Settings
from sfumato.vision.detectors import CATALOGUE as DETECTORS
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector


def run(*arguments: str | Path) -> int:
    """Run in this process; return the exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def paint(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((60, 80, 3), shade, np.uint8)
    pixels[20:40, 30:55] = MAGENTA
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Put the toy in place of the catalogue's detectors; return the settings it is built with."""
    monkeypatch.chdir(tmp_path)
    seen: list[Settings] = []

    def build(settings: Settings) -> Finder:
        seen.append(settings)
        detectors = [ToyDetector(label) for label in settings.hide]
        for detector in detectors:
            detector.name = f"toy-{detector.finds[0]}"
        return Finder(detectors, settings.hide, thresholds=settings.thresholds)

    monkeypatch.setattr("sfumato.redaction.plan.build_finder", build)
    return seen


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index in range(3):
        paint(tmp_path / "photos" / f"{index}.png", 50 * index)
    return tmp_path / "photos"


def test_a_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("redact", photos, "-o", "safe") == 0
    out, err = capsys.readouterr()
    assert "Redacted: 3 of 3 files (3 pictures)" in out
    assert "Regions: face 3." in out
    assert "Per file" in out
    assert "the bare detectors took" in out
    assert "Guarantee: heuristic." in out
    assert "safe/report.html" in out
    assert "safe/receipt.json" in out
    assert err.strip() == "no project here: nothing was recorded; `sfumato init` starts one"


def test_json_and_nothing_else_on_standard_output(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "a.txt").write_text("x")
    assert run("redact", photos, "-o", "safe", "--json") == 1
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert (data["status"], data["exit_code"], data["recorded"], data["cosmetic"]) == (
        "incomplete",
        1,
        False,
        False,
    )
    assert data["files"] == {"done": 3, "skipped": 0, "failed": 1, "left_out": 1}
    assert data["failures"][0]["name"] == "bad.jpg"
    assert data["failures"][0]["error"] == "UnreadableMedia"
    assert data["left_out"] == [{"name": "a.txt", "why": "neither a picture nor a video"}]
    assert data["seconds"] >= data["detector_seconds"] > 0
    assert data["ratio"] >= 1
    assert data["seconds_per_image"] > 0
    assert Path(data["receipt"]).is_file()
    assert Path(data["report"]).is_file()
    assert data["guarantee"]["type"] == "heuristic"
    assert "bad.jpg" in err


def test_failures_are_listed_with_their_reasons(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "zero.png").touch()
    assert run("redact", photos, "-o", "safe") == 1
    out, err = capsys.readouterr()
    assert "Redacted: 3 of 5 files" in out
    assert "2 of 5 files could not be redacted" in err
    assert "  bad.jpg: " in err
    assert "  zero.png: " in err


def test_when_all_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "zero.png").touch()
    assert run("redact", "photos", "-o", "safe", "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["status"], data["receipt"], data["report"]) == ("failed", None, None)
    assert run("redact", "photos", "-o", "safe") == 1
    assert "Nothing was redacted" in capsys.readouterr().out
    assert not (tmp_path / "safe").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_single_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    (tmp_path / "zero.png").touch()
    assert run("redact", "zero.png", "-o", "safe.png", *(["--json"] * as_json)) == 1
    out, err = capsys.readouterr()
    assert "zero.png" in err
    if as_json:
        data = json.loads(out)
        assert (data["status"], data["error"], data["exit_code"]) == ("failed", "UnreadableMedia", 1)
        assert data["failures"][0]["name"] == "zero.png"
    assert list(tmp_path.iterdir()) == [tmp_path / "zero.png"]


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["--cover", "fil"], "did you mean 'fill'"),
        (["--margin", "fcae=1"], "did you mean 'face'"),
        (["--margin", "face"], "write CLASS=SHARE"),
        (["--threshold", "face=high"], "write CLASS=SCORE"),
        (["--threshold", "face=7"], "between 0 and 1"),
        (["--model", "yolo26="], "write NAME=FILE"),
        (["--hide", "face,,person"], "a name is empty"),
        (["--every", "0"], "every must be at least 1"),
        (["--size", "8"], "size >= 32"),
        (["--audio", "loud"], "copy"),
        (["--resume", "--overwrite"], "ask for one of them"),
    ],
)  # fmt: skip
def test_usage_errors_end_with_2_and_write_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], way_out: str
) -> None:
    assert run("redact", photos, "-o", "safe", *arguments) == 2
    out, err = capsys.readouterr()
    assert way_out in err
    assert out == ""
    assert not (tmp_path / "safe").exists()


def test_a_refusal_as_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("redact", photos, "-o", "safe", "--cover", "fil", "--json") == 2
    data = json.loads(capsys.readouterr().out)
    assert (data["status"], data["error"], data["exit_code"]) == ("refused", "UnknownName", 2)
    assert "did you mean 'fill'" in data["message"]
    assert data["failures"] == []


def test_options_reach_the_run(photos: Path, asked: list[Settings]) -> None:
    assert run(
        "redact", photos, "-o", "safe", "--hide", "face,person", "--hide", "car", "--cover", "solid",
        "--threshold", "face=0.2", "--margin", "*=0.5", "--every", "3", "--audio", "drop", "--size", "320",
        "--max-pixels", "9999", "--threads", "1", "--model", "yolo26=x.onnx", "--detector", "centerface",
        "--no-report",
    ) == 0  # fmt: skip
    settings = asked[0]
    assert settings.hide == ("face", "person", "car")
    assert (settings.cover, settings.every, settings.audio, settings.size, settings.threads) == (
        "solid", 3, "drop", 320, 1,
    )  # fmt: skip
    assert settings.thresholds == {"face": 0.2}
    assert settings.max_pixels == 9999
    assert settings.margin("car") == 0.5
    assert settings.models == {"yolo26": Path("x.onnx")}
    assert settings.detectors == ("centerface",)
    assert not Path("safe/report.html").exists()


def test_existing_outputs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("redact", photos, "-o", "safe") == 0
    assert run("redact", photos, "-o", "safe") == 2
    assert "--resume" in capsys.readouterr().err
    assert run("redact", photos, "-o", "safe", "--resume") == 0
    assert "3 of them by an earlier run" in capsys.readouterr().out
    assert run("redact", photos, "-o", "safe", "--overwrite", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"]["done"] == 3


def test_the_policy_refuses_with_3_and_adds_with_a_note(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Project.init(tmp_path, name="demo").ledger.close()
    policy = tmp_path / "sfumato.toml"
    policy.write_text(policy.read_text().replace('hide = ["face"]', 'hide = ["face", "person"]'))
    assert run("redact", photos, "-o", "safe", "--cover", "blur") == 3
    assert "redact.cover in sfumato.toml" in capsys.readouterr().err
    assert run("redact", photos, "-o", "safe", "--hide", "face") == 0
    out, err = capsys.readouterr()
    assert "face 3, person 3" in out
    assert err.strip() == "the policy hides person as well (redact.hide in sfumato.toml)"
    assert run("redact", photos, "-o", "other", "--json") == 0
    assert json.loads(capsys.readouterr().out)["recorded"] is True


def test_a_cover_takes_its_settings_from_the_command_line(photos: Path, asked: list[Settings]) -> None:
    options = ("--cover", "solid", "--cover-option", "colour=255,200,0")
    assert run("redact", photos, "-o", "safe", *options) == 0
    assert asked[-1].cover_options == {"colour": (255, 200, 0)}
    shown = np.asarray(Image.open(next(Path("safe").rglob("*.png"))).convert("RGB"))
    assert (shown == (255, 200, 0)).all(axis=2).any()


def test_a_pasted_picture_is_named_by_its_hash_alone(photos: Path) -> None:
    paint(Path("smile.png"))
    assert (
        run("redact", photos, "-o", "safe", "--cover", "replace", "--cover-option", "picture=smile.png") == 0
    )
    text = Path("safe/receipt.json").read_text()
    assert "sha256:" in text
    assert "smile" not in text


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("picture=absent.png", "cannot be read"),
        ("colour=1,2,3", "option of the cover 'replace'"),
        ("x", "NAME="),
    ],
)
def test_a_wrong_setting_of_a_cover_is_refused(
    photos: Path, option: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("redact", photos, "-o", "safe", "--cover", "replace", "--cover-option", option) == 2
    assert says in capsys.readouterr().err
    assert not Path("safe").exists()


def test_cosmetic_covers_are_called_so_everywhere(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("redact", photos, "-o", "safe", "--cover", "pixelate") == 0
    assert "cosmetic" in capsys.readouterr().out
    assert run("redact", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for catalogue in (COVERS, DETECTORS):
        for name in catalogue.names:
            assert f"{name} {catalogue.load(name).summary}" in text
    for name in COVERS.names:
        secure = COVERS.load(name).module.SECURE
        assert COVERS.load(name).summary.startswith("secure" if secure else ("cosmetic", "noisy"))


def test_many_left_out_files_are_counted_and_cut_short(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(30):
        (photos / f"{index:02}.txt").touch()
    assert run("redact", photos, "-o", "safe") == 0
    assert "left out, 30: 00.txt" in (err := capsys.readouterr().err)
    assert "and 22 more" in err
    assert "25.txt" not in err


def test_bars_are_drawn_on_a_terminal_only(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert run("redact", photos, "-o", "safe", "--json") == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert "3/3" in err


def _slow_photos(folder: Path) -> None:
    from skimage.data import astronaut

    folder.mkdir()
    for index in range(40):
        Image.fromarray(np.roll(astronaut(), 5 * index, axis=1)).save(folder / f"{index:02}.jpg")


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT to a child")
def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    _slow_photos(tmp_path / "slow")
    call: list[Any] = [sys.executable, "-m", "sfumato", "redact", "slow", "-o", "safe", "--no-report"]
    process = subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "safe").glob("*.jpg"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    done = sorted((tmp_path / "safe").glob("*.jpg"))
    assert 2 <= len(done) < 40
    for path in done:
        with Image.open(path) as image:
            image.load()
    assert len(json.loads((tmp_path / "safe" / "receipt.json").read_text())["outputs"]) == len(done)
    left = {path.name for path in (tmp_path / "safe").iterdir() if path.suffix != ".jpg"}
    assert left == {"receipt.json", ".sfumato-resume.jsonl"}


def _stop(tmp_path: Path, number: signal.Signals, times: int = 1) -> tuple[int, str, str]:
    """Send a run a signal once it has written two files; return its exit code and what it printed."""
    _slow_photos(tmp_path / "slow")
    call: list[Any] = [
        sys.executable,
        "-m",
        "sfumato",
        "redact",
        "slow",
        "-o",
        "safe",
        "--no-report",
        "--json",
    ]
    before = signal.signal(number, signal.SIG_DFL)  # under nohup a child would inherit that it is ignored
    try:
        process = subprocess.Popen(
            call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(number, before)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "safe").glob("*.jpg"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.skipif(os.name == "nt", reason="needs signals to a child")
@pytest.mark.parametrize(("name", "times"), [("SIGTERM", 1), ("SIGHUP", 1), ("SIGINT", 12)])
def test_every_stop_settles_what_was_released(tmp_path: Path, name: str, times: int) -> None:
    code, out, err = _stop(tmp_path, signal.Signals[name], times)
    assert (code, "Traceback" in err, "terminate called" in err) == (130, False, False)
    data = json.loads(out)
    assert data["status"] == "stopped"
    done = sorted((tmp_path / "safe").glob("*.jpg"))
    assert 2 <= len(done) == data["files"]["done"] < 40
    left = {path.name for path in (tmp_path / "safe").iterdir() if path.suffix != ".jpg"}
    assert left == {"receipt.json", ".sfumato-resume.jsonl"}
    assert run("receipt", "verify", tmp_path / "safe" / "receipt.json", tmp_path / "safe") == 0


def test_handlers_are_put_back(photos: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run("redact", photos, "-o", "safe") == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "safe"), "safe: no space left on device. Make"),
        (PermissionError(errno.EACCES, "Permission denied", "safe"), "Change the permissions"),
        (OSError(errno.EIO, "Input/output error"), "call again with --resume"),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed"), "Rename the file or folder"),
        (sqlite3.OperationalError("disk I/O error"), "the ledger cannot be read or written: disk I/O error"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_one_line(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("sfumato.redaction.run.Journal", refuse)
    assert run("redact", photos, "-o", "safe") == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err
    assert run("redact", photos, "-o", "safe", "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["status"], data["exit_code"], told in data["message"]) == ("failed", 1, True)


def test_names_that_are_too_long_or_no_text(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("redact", photos / "0.png", "-o", "x" * 240 + ".png") == 1
    assert "at most 230 bytes" in capsys.readouterr().err
    odd = os.fsdecode(b"safe\xff.png")
    assert run("redact", photos / "0.png", "-o", odd, "--no-report") == 0
    out, _ = capsys.readouterr()
    assert "safe\\xff.png.receipt.json" in out
    assert run("receipt", "verify", f"{odd}.receipt.json", odd) == 0
    assert run("redact", photos / "0.png", "-o", odd, "--json", "--overwrite") == 0


@pytest.mark.skipif(os.name == "nt", reason="needs a umask")
def test_the_umask_holds(photos: Path, tmp_path: Path) -> None:
    call = f"umask 077; {sys.executable} -m sfumato redact photos -o safe"
    subprocess.run(call, shell=True, cwd=tmp_path, check=True, capture_output=True)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "safe").iterdir()}
    assert set(modes.values()) == {0o600}, modes


class TestReceiptsAndStrangers:
    def verify(self, *more: str) -> int:
        return run("receipt", "verify", "safe/receipt.json", "safe", *more)

    @pytest.mark.parametrize(
        "name",
        ["original.png", ".hidden.png", "deep/report.html", "x.receipt.json", "deep/.x", "my-report.html"],
    )
    def test_a_file_that_the_receipt_does_not_name(
        self, photos: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        assert run("redact", photos, "-o", "safe") == 0
        assert self.verify() == 0
        path = Path("safe") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((photos / "0.png").read_bytes())
        capsys.readouterr()
        assert self.verify() == 5
        out, err = capsys.readouterr()
        assert out == ""
        assert path.name in err
        assert "--allow-others" in err
        assert self.verify("--allow-others") == 0
        assert path.name in capsys.readouterr().err

    def test_a_link_to_a_folder(self, photos: Path) -> None:
        assert run("redact", photos, "-o", "safe") == 0
        Path("safe/more").symlink_to(photos)
        assert self.verify() == 5

    def test_beside_a_single_file(self, photos: Path) -> None:
        Path("safe").mkdir()
        assert run("redact", photos / "0.png", "-o", "safe/one.png") == 0
        assert run("receipt", "verify", "safe/one.png.receipt.json", "safe") == 0
        assert run("receipt", "verify", "safe/one.png.receipt.json", photos / "0.png") == 5
        assert run("redact", photos / "1.png", "-o", "safe/two.png") == 0
        assert run("receipt", "verify", "safe/one.png.receipt.json", "safe") == 5
        assert run("receipt", "verify", "safe/one.png.receipt.json", "safe/one.png") == 0


def test_an_address_without_its_engine_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "a.png")
    assert run("redact", "a.png", "-o", "safe.png", "--ray-address", "auto") == 2
    assert "--engine ray" in capsys.readouterr().err
    assert not (tmp_path / "safe.png").exists()


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_no_workers_are_refused(tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "a.png")
    assert run("redact", "a.png", "-o", "safe.png", "--workers", workers) == 2
    assert f"at least 1, got {workers}" in capsys.readouterr().err
