"""How a run ends: what an earlier run left, and what an interrupt or an error leaves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sfumato.core.errors import UnreadableMedia
from sfumato.core.gate import Permit
from sfumato.core.receipt import Receipt
from sfumato.redaction.batch import Watch
from sfumato.redaction.result import Run, Stopped
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes
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


def go(source: Path, target: Path, **options: Any) -> Run:
    finder, watch = options.pop("finder", toys), options.pop("watch", None)
    return run_files(source, target, options=Options(**options), finder=finder, watch=watch)


class Counting(ToyDetector):
    """Tells a function of its calls, counted from 1."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self.act, self.calls = act, 0

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        self.calls += 1
        self.act(self.calls)
        return super().detect(image, floor=floor)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, name in enumerate(("a.png", "b/two.jpg", "b/three.PNG", "c.webp")):
        paint(tmp_path / "photos" / name, 60 + 10 * index)
    return tmp_path / "photos"


class TestOlderOutputs:
    """An output of an earlier run, which may hide less, must not pass for one of this run."""

    def test_a_report_of_an_earlier_run_goes(self, photos: Path, tmp_path: Path) -> None:
        report = tmp_path / "safe" / "report.html"
        go(photos, tmp_path / "safe")
        assert report.exists()
        go(photos, tmp_path / "safe", overwrite=True, report=False)
        assert not report.exists()

    def test_receipt_and_report_go_before_the_first_name(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go(photos, tmp_path / "safe")
        there: list[bool] = []

        def look(folder: Path) -> None:
            there.extend((tmp_path / "safe" / name).exists() for name in ("receipt.json", "report.html"))

        monkeypatch.setattr("sfumato.redaction.batch.sync_folder", look)
        go(photos, tmp_path / "safe", overwrite=True)
        assert there
        assert not any(there)

    def test_a_stopped_overwrite_leaves_no_older_report(self, photos: Path, tmp_path: Path) -> None:
        go(photos, tmp_path / "safe")

        def act(call: int) -> None:
            if call == 3:
                raise KeyboardInterrupt

        with pytest.raises(Stopped) as caught:
            go(
                photos, tmp_path / "safe", overwrite=True, workers=1,
                finder=lambda settings: Finder([Counting(act)], settings.hide),
            )  # fmt: skip
        assert not (tmp_path / "safe" / "report.html").exists()
        assert len(caught.value.run.results) == 2
        assert len(caught.value.run.older) == 2

    def test_a_failure_names_the_older_output(self, photos: Path, tmp_path: Path) -> None:
        go(photos, tmp_path / "safe")
        (photos / "c.webp").write_bytes(b"RIFF")
        (photos / "b" / "two.jpg").unlink()
        old = tmp_path / "safe" / "c.webp"
        for options in ({"overwrite": True}, {"resume": True}):
            run = go(photos, tmp_path / "safe", **options)
            assert [failure.name for failure in run.failures] == ["c.webp"]
            assert f"an older output was left at {old}" in run.failures[0].reason
            assert run.older == (tmp_path / "safe" / "b" / "two.jpg", old)
            assert any(note.startswith("2 other files lie in the output folder") for note in run.notes)
            assert run.receipt is not None
            assert sha256(old.read_bytes()).hexdigest() not in {o.sha256 for o in run.receipt.outputs}

    def test_so_does_a_single_file(self, tmp_path: Path) -> None:
        source = paint(tmp_path / "a.png")
        go(source, tmp_path / "safe.png")
        source.write_bytes(source.read_bytes()[:90])
        with pytest.raises(UnreadableMedia, match=r"an older output was left at .*safe\.png"):
            go(source, tmp_path / "safe.png", overwrite=True)


def test_an_interrupt_while_the_run_is_settled_tears_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Permit.settle

    def hammered(self: Permit, *arguments: Any, **options: Any) -> Receipt:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return settle(self, *arguments, **options)

    monkeypatch.setattr(Permit, "settle", hammered)
    with pytest.raises(Stopped) as caught:
        go(photos, tmp_path / "safe")
    outputs = [result.item.target for result in caught.value.run.results]
    assert len(outputs) == 4
    assert Receipt.read(tmp_path / "safe" / "receipt.json").verify_files(outputs) == ()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_from_outside_leaves_a_receipt_of_what_was_released(photos: Path, tmp_path: Path) -> None:
    class Gone(Watch):
        """A terminal that goes away."""

        def finish(self, item: Any, failure: Any) -> None:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        go(photos, tmp_path / "safe", watch=Gone())
    there = [path for path in (tmp_path / "safe").rglob("*.*") if path.suffix in (".png", ".jpg", ".webp")]
    assert there
    assert Receipt.read(tmp_path / "safe" / "receipt.json").verify_files(there) == ()


def test_a_report_that_cannot_be_written_is_a_remark(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sfumato.redaction.report.write_report", full)
    run = go(photos, tmp_path / "safe")
    assert (run.done, run.report_path) == (4, None)
    assert any("no report was written: No space left" in note for note in run.notes)


def test_without_room_for_the_receipt_nothing_gets_its_name(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sfumato.redaction.places.os.fsync", full)
    run = go(photos, tmp_path / "safe")
    assert run.receipt is None
    assert {failure.reason for failure in run.failures} == {"No space left on device"}
    assert not (tmp_path / "safe").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_copy_that_a_full_disk_cut_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    from sfumato.redaction.images.write import write_picture

    def cut(picture: Any, path: Path) -> None:
        write_picture(picture, path)
        os.truncate(path, int(path.stat().st_size * share))

    monkeypatch.setattr("sfumato.redaction.images.redact.write_picture", cut)
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        with pytest.raises(UnreadableMedia, match="Is there room on the disk"):
            go(paint(tmp_path / f"a{suffix}"), tmp_path / f"safe{suffix}")
        assert not (tmp_path / f"safe{suffix}").exists()
