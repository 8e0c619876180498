"""Checking files: what was not hidden is found, and what was hidden is not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from skimage import data

from sfumato.cli.main import main
from sfumato.core.errors import InvalidRequest
from sfumato.redaction.check import check
from sfumato.redaction.check.looks import Eye, Looker, make_looker
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings

FACE = (179, 60, 269, 177)


@pytest.fixture(scope="module")
def looker() -> Looker:
    return make_looker(["face"], threads=1)[0]


def small(turn: int = 0) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.rot90(data.astronaut()[:360, 40:400], turn)))


def bare(image: Image.Image, path: Path) -> Path:
    image.save(path, quality=90)
    return path


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    (folder / "in").mkdir()
    bare(small(), folder / "in" / "a.jpg")
    run_files(folder / "in", folder / "out", Settings(), options=Options(report=False))
    return folder


@pytest.mark.parametrize("turn", range(4))
def test_an_open_face_is_found_however_it_is_turned(tmp_path: Path, looker: Looker, turn: int) -> None:
    report = check(bare(small(turn), tmp_path / "a.png"), looker=looker)
    assert [find.kind for find in report.finds] == ["seen"]
    assert not report.ok


def test_a_redacted_picture_passes_with_its_original(safe: Path, looker: Looker) -> None:
    report = check(safe / "out", original=safe / "in", looker=looker)
    assert report.ok, report.finds
    assert [(one.exposed, one.least >= 0.9) for one in report.coverage] == [(0, True)]


def test_a_no_op_is_exposed(safe: Path, looker: Looker) -> None:
    report = check(safe / "in", original=safe / "in", looker=looker)
    assert {"seen", "exposed"} <= {find.kind for find in report.finds}


def test_metadata_and_a_thumbnail_are_found(safe: Path, tmp_path: Path, looker: Looker) -> None:
    thumb = io.BytesIO()
    small().resize((160, 160)).save(thumb, "JPEG")
    plain = (safe / "out" / "a.jpg").read_bytes()
    body = b"Exif\0\0" + thumb.getvalue()
    planted = plain[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + plain[2:]
    (tmp_path / "a.jpg").write_bytes(planted)
    kinds = {find.kind for find in check(tmp_path / "a.jpg", looker=looker).finds}
    assert kinds == {"metadata", "thumbnail"}


def clip(path: Path, open_at: int | None, **tags: str) -> Path:
    """Write ten frames of a moving portrait whose face is covered but in one frame."""
    covered = data.astronaut().copy()
    covered[0:230, 140:310] = 128
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(10):
            source = data.astronaut() if index == open_at else covered
            part = np.ascontiguousarray(source[0:240, 60 + 2 * index : 380 + 2 * index])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("frame", [None, 4, 9])
def test_one_open_frame_is_found(tmp_path: Path, looker: Looker, frame: int | None) -> None:
    report = check(clip(tmp_path / "a.mp4", frame), looker=looker)
    seen = [find.frame for find in report.finds if find.kind == "seen"]
    assert seen == ([] if frame is None else [frame])
    assert report.frames == 10


def test_tags_of_a_video_are_found(tmp_path: Path, looker: Looker) -> None:
    report = check(clip(tmp_path / "a.mp4", None, title="Jane Doe"), looker=looker)
    assert any("title" in find.label for find in report.finds)


def test_what_cannot_be_read_was_not_checked(tmp_path: Path, looker: Looker) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    report = check(tmp_path, looker=looker)
    assert not report.ok
    assert report.failures


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no file"):
        check(tmp_path / "x")
    with pytest.raises(InvalidRequest, match="holds no picture"):
        check(tmp_path)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bare(small(), tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        main(["check", "a.png", "--json", "-o", "found.png"])
    assert stop.value.code == 1
    assert json.loads(capsys.readouterr().out)["finds"][0]["label"] == "face"
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.size == (240, 258)


def test_a_run_quarantines_what_fails(
    tmp_path: Path, looker: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    bare(small(), tmp_path / "in" / "open.png")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "in" / "plain.png")
    blind = Settings(thresholds={"face": 0.999})
    run = run_files(tmp_path / "in", tmp_path / "out", blind, options=Options(report=False, check=True))
    assert [failure.error for failure in run.failures] == ["CheckFailed"]
    assert not (tmp_path / "out" / "open.png").exists()
    assert (tmp_path / "quarantine" / "out" / "open.png").is_file()
    assert (tmp_path / "out" / "plain.png").is_file()
    assert run.receipt is not None
    (test,) = run.receipt.body["facts"]["tests"]
    assert (test["guarantee"], test["files_found"], test["result"]) == ("tested", 1, {"seen": 1})


@pytest.mark.slow
def test_every_no_op_is_found(testdata: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels = json.loads(testdata("labels/faces.json").read_text())
    given = testdata("models/face_detection_yunet_2023mar.onnx")
    looker, _ = make_looker(["face"], models={"yunet": given})
    assert isinstance(looker.eyes[0], Eye)
    missed = []
    for name, known in labels.items():
        if known["faces"]:
            picture = np.array(Image.open(testdata(f"images/{name}")).convert("RGB"))
            if not looker.closely(picture):
                missed.append(name)
    assert not missed
