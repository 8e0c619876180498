"""Whole runs through real files: what is written, what is refused, what is told."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sfumato.core.errors import (
    BatchFailed,
    InvalidRequest,
    PolicyRefused,
    SfumatoError,
    UnknownName,
    UnreadableMedia,
    UnsupportedMedia,
)
from sfumato.core.project import Project
from sfumato.core.receipt import Receipt
from sfumato.core.verify import verify
from sfumato.redaction.batch import Watch
from sfumato.redaction.result import Run, Stopped
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector

NAME = "anna-k-example"


def paint(path: Path, shade: int = 90, **options: Any) -> Path:
    """Write a picture with one magenta patch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((60, 80, 3), shade, np.uint8)
    pixels[20:40, 30:55] = MAGENTA
    Image.fromarray(pixels).save(path, **options)
    return path


def toys(settings: Settings) -> Finder:
    return Finder([ToyDetector()], settings.hide, thresholds=settings.thresholds)


def go(source: Path, target: Path, request: Any = None, **options: Any) -> Run:
    finder = options.pop("finder", toys)
    watch = options.pop("watch", None)
    gate = options.pop("gate", None)
    return run_files(
        source, target, request, options=Options(**options), finder=finder, watch=watch, gate=gate
    )


def is_safe(path: Path) -> bool:
    with Image.open(path) as image:
        return not len(ToyDetector().detect(np.array(image.convert("RGB"))))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    source = tmp_path / "photos"
    for index, name in enumerate((f"{NAME}.png", "b/two.jpg", "b/three.PNG", "c.webp")):
        paint(source / name, 60 + 10 * index)
    return source


def test_a_folder_is_mirrored_and_safe(photos: Path, tmp_path: Path) -> None:
    before = files(photos)
    run = go(photos, tmp_path / "safe")
    written = sorted(str(result.item.target.relative_to(tmp_path / "safe")) for result in run.results)
    assert written == sorted(before)
    assert all(is_safe(result.item.target) for result in run.results)
    assert not any(is_safe(path) for path in (photos / name for name in before))  # the check can fail
    assert (run.done, run.skipped, run.failures, run.regions) == (4, 0, (), {"face": 4})
    assert run.detector_seconds > 0
    assert run.ratio is not None
    assert run.ratio >= 1
    assert files(photos) == before
    hidden = [path.name for path in (tmp_path / "safe").rglob(".*")]
    assert hidden == [".sfumato-resume.jsonl"]


def test_the_receipt_verifies_and_names_nobody(photos: Path, tmp_path: Path) -> None:
    run = go(photos, tmp_path / "safe")
    receipt = Receipt.read(tmp_path / "safe" / "receipt.json")
    assert receipt.verify_files(result.item.target for result in run.results) == ()
    assert receipt.guarantee == "heuristic"
    facts = receipt.body["facts"]
    assert facts["files"] == {"found": 4, "done": 4, "skipped": 0, "failed": 0, "left_out": 0}
    assert facts["regions"] == {"face": 4}
    for name in ("receipt.json", "report.html", ".sfumato-resume.jsonl"):
        text = (tmp_path / "safe" / name).read_text()
        assert NAME not in text, name
        assert str(tmp_path) not in text, name
        assert "photos" not in text, name
        for data in files(photos).values():
            assert sha256(data).hexdigest() not in text, name


def test_a_single_file_has_its_receipt_beside_it(photos: Path, tmp_path: Path) -> None:
    run = go(photos / "b" / "two.jpg", tmp_path / "new" / "safe.jpg")
    there = {path.name for path in (tmp_path / "new").iterdir()}
    assert there == {
        "safe.jpg",
        "safe.jpg.receipt.json",
        "safe.jpg.report.html",
        ".safe.jpg.sfumato-resume.jsonl",
    }
    assert run.receipt_path == tmp_path / "new" / "safe.jpg.receipt.json"
    go(photos / f"{NAME}.png", tmp_path / "new" / "safe.png")  # the same stem, and nothing is in the way
    (tmp_path / "folder").mkdir()
    run = go(photos / "b" / "two.jpg", tmp_path / "folder", report=False)
    assert run.results[0].item.target == tmp_path / "folder" / "two.jpg"
    assert run.report_path is None
    assert not (tmp_path / "folder" / "two.jpg.report.html").exists()


def test_a_batch_goes_on_past_bad_files_and_names_them(photos: Path, tmp_path: Path) -> None:
    whole = (photos / "b" / "two.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "noise.png").write_bytes(os.urandom(200))
    (photos / "zero.mp4").touch()
    run = go(photos, tmp_path / "safe")
    assert [failure.name for failure in run.failures] == ["cut.jpg", "noise.png", "zero.mp4"]
    assert run.done == 4
    assert not any((tmp_path / "safe" / name).exists() for name in ("cut.jpg", "noise.png", "zero.mp4"))
    assert run.receipt is not None
    assert run.receipt.body["facts"]["failed_by_reason"] == {"UnreadableMedia": 3}
    with pytest.raises(BatchFailed, match=r"3 of 7 files(.|\n)*cut\.jpg") as caught:
        run.check()
    assert [name for name, _ in caught.value.failures] == ["cut.jpg", "noise.png", "zero.mp4"]
    assert caught.value.exit_code == 1


def test_a_failed_file_leaves_what_was_there(photos: Path, tmp_path: Path) -> None:
    (photos / "cut.jpg").write_bytes((photos / "b" / "two.jpg").read_bytes()[:300])
    (tmp_path / "safe").mkdir()
    (tmp_path / "safe" / "cut.jpg").write_bytes(b"from before")
    go(photos, tmp_path / "safe", overwrite=True)
    assert (tmp_path / "safe" / "cut.jpg").read_bytes() == b"from before"


def test_a_single_bad_file_raises_its_own_error_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(paint(tmp_path / "a.jpg").read_bytes()[:300])
    with pytest.raises(UnreadableMedia, match=r"cut\.jpg"):
        go(tmp_path / "cut.jpg", tmp_path / "out" / "safe.jpg")
    assert not (tmp_path / "out").exists()
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnsupportedMedia, match="neither a picture nor a video"):
        go(tmp_path / "notes.txt", tmp_path / "out" / "safe.jpg")


def test_when_all_fail_nothing_was_released(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "zero.jpg").touch()
    project = Project.init(tmp_path / "project")
    run = go(tmp_path / "photos", tmp_path / "safe", gate=project.gate())
    assert run.receipt is None
    assert len(run.failures) == 1
    assert not (tmp_path / "safe").exists()
    assert [entry.kind for entry in project.ledger.entries()][-2:] == ["reserve", "void"]
    with pytest.raises(BatchFailed):
        run.check()


def test_a_project_records_one_release_per_run(photos: Path, tmp_path: Path) -> None:
    project = Project.init(tmp_path, name="demo")
    run = go(photos, tmp_path / "safe")
    assert run.receipt is not None
    assert run.receipt.recorded
    run.receipt.verify_ledger(project.ledger)
    found = verify(project.ledger)
    assert (found.releases, found.unfinished) == (1, ())
    assert NAME not in json.dumps([entry.to_data() for entry in project.ledger.entries()])


def test_purposes_are_asked_for_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    Project.init(tmp_path, name="demo").ledger.close()
    with (tmp_path / "sfumato.toml").open("a") as file:
        file.write('\n[purposes.planning]\nactions = ["redact"]\n')
    with pytest.raises(PolicyRefused, match="Name one with --purpose"):
        go(photos, tmp_path / "safe")
    assert not (tmp_path / "safe").exists()
    run = go(photos, tmp_path / "safe", purpose="planning")
    assert run.receipt is not None
    assert run.receipt.body["plan"]["purpose"] == "planning"


def test_the_policy_goes_beyond_the_request_and_says_so(photos: Path, tmp_path: Path) -> None:
    def both(settings: Settings) -> Finder:
        other = ToyDetector("person")
        other.name = "other"
        return Finder([ToyDetector(), other], settings.hide)

    project = Project.init(tmp_path, name="demo")
    policy = project.root / "sfumato.toml"
    policy.write_text(policy.read_text().replace('hide = ["face"]', 'hide = ["face", "person"]'))
    run = go(photos, tmp_path / "safe", Settings(hide=("face",)), finder=both)
    assert run.regions == {"face": 4, "person": 4}
    assert any("the policy hides person as well" in note for note in run.notes)
    with pytest.raises(PolicyRefused, match="cosmetic"):
        go(photos, tmp_path / "other", Settings(cover="blur"), finder=both)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("target", "error", "why"),
    [
        ("photos", InvalidRequest, "lies in the source"),
        ("photos/safe", InvalidRequest, "lies in the source"),
        ("photos/../photos/b", InvalidRequest, "lies in the source"),
        (".", InvalidRequest, "holds the source"),
        ("file.jpg", InvalidRequest, "is a folder"),
        ("link", InvalidRequest, "lies in the source"),
    ],
)
def test_targets_that_would_harm_are_refused(
    photos: Path, tmp_path: Path, target: str, error: type[Exception], why: str
) -> None:
    paint(tmp_path / "file.jpg")
    (tmp_path / "link").symlink_to(photos / "b")
    before = files(tmp_path)
    with pytest.raises(error, match=why):
        go(photos, Path(target))
    assert files(tmp_path) == before


def test_a_link_in_the_target_cannot_lead_into_the_source(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    (tmp_path / "safe" / "b").symlink_to(photos / "b")
    before = files(photos)
    with pytest.raises(InvalidRequest, match="a link into the source"):
        go(photos, tmp_path / "safe", overwrite=True)
    assert files(photos) == before


def test_a_file_is_never_written_over_itself(tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png")
    (tmp_path / "hard.png").hardlink_to(source)
    for target in ("a.png", "hard.png", "."):
        with pytest.raises(InvalidRequest, match="the input itself"):
            go(source, Path(target), overwrite=True)
    with pytest.raises(InvalidRequest, match=r"keeps its format.*\.png"):
        go(source, Path("b.jpg"))
    with pytest.raises(InvalidRequest, match=r"give it a suffix such as \.png"):
        go(source, Path("b"))


def test_what_exists_is_kept_unless_asked(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "safe"
    (target / "b").mkdir(parents=True)
    (target / "b" / "two.jpg").write_bytes(b"mine")
    with pytest.raises(InvalidRequest, match=r"two\.jpg exists already.*--resume.*--overwrite"):
        go(photos, target)
    assert files(target) == {"b/two.jpg": b"mine"}
    with pytest.raises(InvalidRequest, match="ask for one of them"):
        go(photos, target, overwrite=True, resume=True)
    go(photos, target, overwrite=True)
    assert is_safe(target / "b" / "two.jpg")
    with pytest.raises(InvalidRequest, match="and 5 more"):
        go(photos, target)


def test_refusals_come_before_the_first_write(photos: Path, tmp_path: Path) -> None:
    for request in (Settings(cover="fil"), Settings(hide=("fase",))):
        with pytest.raises(UnknownName):
            run_files(photos, tmp_path / "safe", request)
    for source in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InvalidRequest, match=r"no file or folder|holds no picture"):
            go(source, tmp_path / "safe")
    assert not (tmp_path / "safe").exists()


def test_odd_files_and_links(photos: Path, tmp_path: Path) -> None:
    outside = paint(tmp_path / "outside" / "x.png")
    (photos / "labels.txt").write_text("0 0.5 0.5 1 1")
    (photos / "readme").write_text("hello")
    (photos / ".secret.png").write_bytes(outside.read_bytes())
    (photos / "linked.png").symlink_to(outside)
    (photos / "loop").symlink_to(photos)
    (photos / "elsewhere").symlink_to(outside.parent)
    (photos / "lost.png").symlink_to(tmp_path / "gone.png")
    (photos / "circle.png").symlink_to(photos / "circle.png")
    os.mkfifo(photos / "pipe.mp4")
    os.mkfifo(photos / "pipe")
    run = go(photos, tmp_path / "safe")
    assert run.done == 5
    assert is_safe(tmp_path / "safe" / "linked.png")
    assert {name for name, _ in run.left_out} == {"labels.txt", "readme", ".secret.png", "loop", "pipe"}
    assert {failure.name for failure in run.failures} == {"elsewhere", "lost.png", "circle.png", "pipe.mp4"}
    assert outside.exists()
    assert not (tmp_path / "safe" / "loop").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(photos: Path, tmp_path: Path) -> None:
    (photos / "c.webp").chmod(0)
    (photos / "b").chmod(0)
    run = go(photos, tmp_path / "safe")
    (photos / "b").chmod(0o755)
    assert [failure.name for failure in run.failures] == ["b", "c.webp"]


def test_outputs_never_share_a_name(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    paint(source / "walk.png")
    paint(source / "real.png").rename(source / "walk.mp4")  # a picture with a video's name
    paint(source / "Case.png")
    paint(source / "case.png", 20)
    run = go(source, tmp_path / "safe")
    names = {result.item.name: result.item.target.name for result in run.results}
    assert names == {
        "walk.png": "walk.png",
        "walk.mp4": "walk.mp4.png",
        "Case.png": "Case.png",
        "case.png": "case.png.png",
    }
    assert all(is_safe(result.item.target) for result in run.results)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    data = paint(tmp_path / "a.png").read_bytes()
    for name in (b"line\nbreak.png", b"\xff\xfe.png", b"\x1b[31mred.png"):
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(data)
    (source / "\x1b[2J.png").write_bytes(b"bad")
    run = go(source, tmp_path / "safe")
    assert run.done == 3
    assert {result.item.name for result in run.results} == {
        "line\\nbreak.png",
        "\\xff\\xfe.png",
        "\\x1b[31mred.png",
    }
    assert run.failures[0].name == "\\x1b[2J.png"
    assert run.failures[0].reason.isprintable()


def test_results_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for index in range(9):
        paint(source / f"{index}.png", 20 * index)
    runs = [go(source, tmp_path / f"safe{workers}", workers=workers) for workers in (1, 4)]
    one, many = ([result.output for result in run.results] for run in runs)
    assert one == many
    assert [result.item.name for result in runs[1].results] == [f"{index}.png" for index in range(9)]


class Counting(ToyDetector):
    """Counts how many look at once; may raise or wait."""

    def __init__(self, act: Callable[[int], None] = lambda call: None) -> None:
        super().__init__()
        self.act, self.calls, self.now, self.most = act, 0, 0, 0
        self.lock = threading.Lock()

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        with self.lock:
            self.calls += 1
            call = self.calls
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.act(call)
            return super().detect(image, floor=floor)
        finally:
            with self.lock:
                self.now -= 1


def test_work_is_shared_and_bounded(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for index in range(8):
        paint(source / f"{index}.png", 20 * index)
    detector = Counting(lambda call: time.sleep(0.02))
    go(source, tmp_path / "safe", finder=lambda settings: Finder([detector], settings.hide), workers=2)
    assert detector.most == 2


def test_an_unexpected_error_is_one_failure(photos: Path, tmp_path: Path) -> None:
    def act(call: int) -> None:
        if call == 2:
            raise RuntimeError("the detector stumbled")

    detector = Counting(act)
    run = go(photos, tmp_path / "safe", finder=lambda settings: Finder([detector], settings.hide), workers=1)
    assert run.done == 3
    assert [failure.reason for failure in run.failures] == ["unexpected RuntimeError: the detector stumbled"]
    assert not isinstance(RuntimeError(), SfumatoError)


def test_an_interrupt_leaves_whole_files_with_a_receipt(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for index in range(6):
        paint(source / f"{index}.png", 30 * index)

    def act(call: int) -> None:
        if call == 4:
            raise KeyboardInterrupt

    detector = Counting(act)
    project = Project.init(tmp_path / "project")
    with pytest.raises(Stopped, match=r"stopped after 3 of 6 files.*--resume") as caught:
        go(
            source, tmp_path / "safe", workers=1, gate=project.gate(),
            finder=lambda settings: Finder([detector], settings.hide),
        )  # fmt: skip
    run = caught.value.run
    assert sorted(path.name for path in (tmp_path / "safe").glob("*.png")) == ["0.png", "1.png", "2.png"]
    assert (
        Receipt.read(tmp_path / "safe" / "receipt.json").verify_files(
            result.item.target for result in run.results
        )
        == ()
    )
    assert verify(project.ledger).unfinished == ()
    assert not list((tmp_path / "safe").glob(".sfumato-work-*"))
    again = go(source, tmp_path / "safe", resume=True)
    assert (again.done, again.skipped) == (3, 3)


@pytest.mark.parametrize("moment", ["sync_folder", "journal"])
def test_an_interrupt_while_a_file_gets_its_name(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    calls: list[Any] = []

    def third(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt

    if moment == "journal":  # before the name
        monkeypatch.setattr("sfumato.redaction.resume.Journal.add", third)
    else:  # after it
        monkeypatch.setattr("sfumato.redaction.batch.sync_folder", third)
    with pytest.raises(Stopped) as caught:
        go(photos, tmp_path / "safe")
    there = [
        path for path in (tmp_path / "safe").rglob("*") if path.suffix.lower() in (".png", ".jpg", ".webp")
    ]
    assert len(there) == len(caught.value.run.results) == (2 if moment == "journal" else 3)
    assert Receipt.read(tmp_path / "safe" / "receipt.json").verify_files(there) == ()


def test_an_interrupt_before_the_first_file_releases_nothing(photos: Path, tmp_path: Path) -> None:
    def act(call: int) -> None:
        raise KeyboardInterrupt

    project = Project.init(tmp_path / "project")
    with pytest.raises(KeyboardInterrupt) as caught:
        go(
            photos, tmp_path / "safe", gate=project.gate(),
            finder=lambda settings: Finder([Counting(act)], settings.hide),
        )  # fmt: skip
    assert not isinstance(caught.value, Stopped)
    assert not (tmp_path / "safe").exists()
    assert [entry.kind for entry in project.ledger.entries()][-1] == "void"


def test_a_folder_of_pictures_and_videos(
    photos: Path, tmp_path: Path, clip: Callable[..., Path], open_frames: Callable[[Path], list[int]]
) -> None:
    clip("walk.mp4", frames=12).rename(photos / "walk.mp4")
    clip("walk.avi", frames=12, codec="mpeg4", options={"q": "2"}).rename(photos / "walk.avi")
    heard: list[int] = []

    class Ears(Watch):
        def frames(self, done: int, total: int | None) -> None:
            heard.append(done)

    run = go(photos, tmp_path / "safe", watch=Ears(), workers=2)
    assert run.receipt is not None
    facts = run.receipt.body["facts"]
    assert (facts["pictures"], facts["videos"], facts["frames"]) == (4, 2, 4 + 24)
    assert open_frames(tmp_path / "safe" / "walk.mp4") == []
    assert open_frames(photos / "walk.mp4") != []
    assert (tmp_path / "safe" / "walk.avi").exists()
    assert heard
    assert any(limit.startswith("In video") for limit in run.receipt.body["guarantee"]["limits"])


def test_the_embedded_detector_on_a_real_face(tmp_path: Path) -> None:
    from skimage.data import astronaut

    from sfumato.redaction.plan import build_finder

    picture = tmp_path / "astronaut.png"
    Image.fromarray(astronaut()).save(picture)
    run = run_files(picture, tmp_path / "safe.png", Settings())
    assert run.regions == {"face": 1}
    after = np.array(Image.open(tmp_path / "safe.png"))
    assert not len(build_finder(Settings()).find(after))
    assert np.array_equal(after[400:], astronaut()[400:])
