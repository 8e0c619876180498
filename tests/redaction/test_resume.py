"""Going on after a stop: what is done and unchanged is kept, all else is done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from PIL import Image

from sfumato.core.errors import InvalidRequest
from sfumato.core.receipt import Receipt
from sfumato.redaction.result import Run
from sfumato.redaction.resume import FILE_NAME, Journal
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector


def paint(path: Path, shade: int = 90) -> Path:
    """Write a picture with one magenta patch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((60, 80, 3), shade, np.uint8)
    pixels[20:40, 30:55] = MAGENTA
    Image.fromarray(pixels).save(path)
    return path


def toys(settings: Settings) -> Finder:
    return Finder([ToyDetector()], settings.hide, thresholds=settings.thresholds)


def go(source: Path, target: Path, request: Any = None, **options: Any) -> Run:
    return run_files(source, target, request, options=Options(report=False, **options), finder=toys)


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index in range(4):
        paint(tmp_path / "photos" / f"{index}.png", 40 * index)
    return tmp_path / "photos"


def test_what_is_done_is_skipped_and_in_the_receipt(photos: Path, tmp_path: Path) -> None:
    first = go(photos, tmp_path / "safe")
    paint(photos / "new.png", 200)
    run = go(photos, tmp_path / "safe", resume=True)
    assert (run.done, run.skipped, run.regions) == (1, 4, {"face": 5})
    receipt = Receipt.read(tmp_path / "safe" / "receipt.json")
    assert len(receipt.outputs) == 5
    assert receipt.verify_files(sorted((tmp_path / "safe").glob("*.png"))) == ()
    assert set(first.receipt.outputs if first.receipt else ()) < set(receipt.outputs)


def test_what_changed_is_done_again(photos: Path, tmp_path: Path) -> None:
    go(photos, tmp_path / "safe")
    good = pictures(tmp_path / "safe")
    paint(photos / "0.png", 250)  # another input
    (tmp_path / "safe" / "1.png").write_bytes((photos / "1.png").read_bytes())  # an output put back
    (tmp_path / "safe" / "2.png").unlink()
    run = go(photos, tmp_path / "safe", resume=True)
    assert (run.done, run.skipped) == (3, 1)
    now = pictures(tmp_path / "safe")
    assert now.pop("0.png") != good.pop("0.png")
    assert now == good
    assert go(photos, tmp_path / "safe", resume=True).skipped == 4


def test_other_settings_do_all_again(photos: Path, tmp_path: Path) -> None:
    go(photos, tmp_path / "safe")
    assert go(photos, tmp_path / "safe", Settings(threads=3), resume=True).skipped == 4
    assert go(photos, tmp_path / "safe", Settings(cover="solid"), resume=True).done == 4
    assert go(photos, tmp_path / "safe", Settings(cover="solid"), resume=True).skipped == 4


def test_a_link_in_place_of_an_output_does_not_count(photos: Path, tmp_path: Path) -> None:
    go(photos, tmp_path / "safe")
    output = tmp_path / "safe" / "0.png"
    output.rename(tmp_path / "moved.png")
    output.symlink_to(tmp_path / "moved.png")
    assert go(photos, tmp_path / "safe", resume=True).done == 1
    assert not output.is_symlink()


def test_torn_and_tampered_lines_count_for_nothing(photos: Path, tmp_path: Path) -> None:
    go(photos, tmp_path / "safe")
    journal = tmp_path / "safe" / FILE_NAME
    lines = journal.read_text().splitlines()
    assert len(lines) == 4
    forged = json.loads(lines[0])
    forged["outcome"]["regions"] = {"face": 99}
    tampered = [json.dumps(forged), "not json", "[]", "{}", "17", lines[2], lines[1][: len(lines[1]) // 2]]
    journal.write_text("\n".join(tampered))  # the last line is torn
    run = go(photos, tmp_path / "safe", resume=True)
    assert (run.done, run.skipped, run.regions) == (3, 1, {"face": 4})
    assert go(photos, tmp_path / "safe", resume=True).skipped == 4


def test_another_users_memory_counts_for_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(photos, tmp_path / "safe")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other-user"))
    assert go(photos, tmp_path / "safe", resume=True).done == 4


def test_without_a_state_folder_it_still_runs_and_says_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = go(photos, tmp_path / "safe")
    assert run.done == 4
    assert any("--resume will do all again" in note for note in run.notes)


def test_the_secret_is_for_the_user_alone(photos: Path, tmp_path: Path) -> None:
    go(photos, tmp_path / "safe")
    key = platformdirs.user_state_path("sfumato") / "resume.key"
    assert key.stat().st_mode & 0o077 == 0
    assert len(key.read_bytes()) == 32
    assert key.read_bytes().hex() not in (tmp_path / "safe" / FILE_NAME).read_text()


def test_the_memory_tells_nothing_of_names_and_inputs(photos: Path, tmp_path: Path) -> None:
    import hashlib

    go(photos, tmp_path / "safe")
    text = (tmp_path / "safe" / FILE_NAME).read_text()
    for path in photos.iterdir():
        assert path.name not in text
        for guess in (path.name.encode(), path.read_bytes()):  # a plain hash could be guessed
            assert hashlib.sha256(guess).hexdigest() not in text


def test_two_runs_cannot_write_to_one_folder(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    with (
        Journal(tmp_path / "safe" / FILE_NAME),
        pytest.raises(InvalidRequest, match="another run is writing"),
    ):
        go(photos, tmp_path / "safe")
    assert go(photos, tmp_path / "safe").done == 4


def test_a_single_file_resumes_too(photos: Path, tmp_path: Path) -> None:
    go(photos / "0.png", tmp_path / "safe.png")
    assert go(photos / "0.png", tmp_path / "safe.png", resume=True).skipped == 1
    assert go(photos / "1.png", tmp_path / "safe.png", resume=True).done == 1


SLOW = """
    import sys, time
    from pathlib import Path
    from sfumato.redaction.run import Options, run_files
    from sfumato.vision.finder import Finder
    from sfumato.vision.toy import ToyDetector

    class Slow(ToyDetector):
        def detect(self, image, *, floor=0.0):
            time.sleep(0.03)
            return super().detect(image, floor=floor)

    source, target = map(Path, sys.argv[1:])
    options = Options(report=False, resume=True)
    run_files(source, target, options=options, finder=lambda settings: Finder([Slow()], settings.hide))
"""


def start(source: Path, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(SLOW), str(source), str(target)])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_and_leaves_nothing_partial(tmp_path: Path) -> None:
    source, target = tmp_path / "photos", tmp_path / "safe"
    for index in range(24):
        paint(source / f"{index:02}.png", 10 * index)
    go(source, tmp_path / "whole")
    expected = pictures(tmp_path / "whole")
    done_before = 0
    for wanted in (1, 9, 16):
        process = start(source, target)
        deadline = time.monotonic() + 60
        while len(list(target.glob("*.png"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        there = pictures(target)
        assert done_before < len(there) < 24
        assert all(data == expected[name] for name, data in there.items())  # whole, or not there
        done_before = len(there)
    run = go(source, target, resume=True)
    assert run.skipped >= done_before - 1  # one may have its name and not yet its line, or the other way
    assert run.done + run.skipped == 24
    assert pictures(target) == expected
    assert sorted(path.name for path in target.iterdir() if path.name.startswith(".")) == [FILE_NAME]
    receipt = Receipt.read(target / "receipt.json")
    assert receipt.verify_files(sorted(target.glob("*.png"))) == ()
