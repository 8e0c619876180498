"""Dp-pixelate in whole runs: what is charged and when, what is refused, which pixels a grid is taken from."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import sfumato
from sfumato.core.errors import (
    BudgetSpent,
    InvalidRequest,
    PolicyRefused,
    UnknownName,
    UnsupportedMedia,
)
from sfumato.core.event import PureDP
from sfumato.core.gate import Gate
from sfumato.core.project import Project
from sfumato.core.receipt import Receipt
from sfumato.core.verify import verify
from sfumato.redaction.covers import apply_yuv
from sfumato.redaction.covers.dp_pixelate import DpPixelate, build
from sfumato.redaction.covers.fill import build as build_fill
from sfumato.redaction.grids import in_chroma
from sfumato.redaction.images import redact_pixels
from sfumato.redaction.job import Job
from sfumato.redaction.layers import Places, places
from sfumato.redaction.looks import Spot
from sfumato.redaction.request import Request
from sfumato.redaction.result import Run
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings
from sfumato.redaction.videos.brush import Brush
from sfumato.redaction.videos.calm import Calm
from sfumato.redaction.videos.frames import planes
from sfumato.redaction.videos.hands import OwnHands
from sfumato.redaction.videos.looking import together
from sfumato.redaction.videos.looks import looks_of
from sfumato.redaction.videos.redact import _look, redact_video_file, tracks_of
from sfumato.redaction.videos.scan import Scan
from sfumato.redaction.videos.survey import survey
from sfumato.redaction.videos.target import target_of
from sfumato.redaction.zones import Zone
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector
from sfumato.vision.tracks import Track

RULES = """
[populations.street]
unit = "16 pixels"
relation = "replace-one"
epsilon = 4
"""


def toys(settings: Settings) -> Finder:
    return Finder([ToyDetector()], settings.hide, thresholds=settings.thresholds)


def paint(path: Path, *, patch: bool = True, frames: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((80, 100, 3), 90, np.uint8)
    if patch:
        pixels[20:60, 30:70] = MAGENTA
    image = Image.fromarray(pixels)
    more = {"save_all": True, "append_images": [image.rotate(3)] * (frames - 1)} if frames > 1 else {}
    image.save(path, **more)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return declared(tmp_path, RULES)


def declared(folder: Path, rules: str, cover: str = "dp-pixelate") -> Project:
    Project.init(folder, name="demo").close()
    policy = folder / "sfumato.toml"
    policy.write_text(policy.read_text().replace('cover = "fill"', f'cover = "{cover}"') + rules)
    found = Project.find(folder)
    assert found is not None
    return found


def go(source: Path, target: Path, *, resume: bool = False, finder: Any = toys, **request: Any) -> Run:
    return run_files(
        source, target, Request(**request), options=Options(resume=resume, report=False), finder=finder
    )


def spent(project: Project) -> Fraction:
    here = Project(project.root)  # a book is opened anew in every thread
    try:
        return here.ledger.totals("street", "all").epsilon
    finally:
        here.close()


def body(run: Run) -> dict[str, Any]:
    assert run.receipt is not None
    return run.receipt.body


# --- charging ----------------------------------------------------------------------------------------------


def test_a_run_is_proven_charged_before_a_file_is_read_and_says_for_whom(
    project: Project, tmp_path: Path
) -> None:
    before: list[Fraction] = []

    class Watching(ToyDetector):
        def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Any:
            before.append(spent(project))
            return super().detect(image, floor=floor)

    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png")
    run = go(
        tmp_path / "photos",
        tmp_path / "safe",
        finder=lambda settings: Finder([Watching()], settings.hide),
        cover_options={"epsilon": 0.5},
    )
    assert set(before) == {Fraction(1, 2)}
    assert spent(project) == Fraction(1, 2)  # once for three files
    said = body(run)
    assert said["guarantee"]["type"] == "proven"
    assert said["plan"]["event"] == {"kind": "pure", "epsilon": "0.5"}
    assert said["plan"]["population"] == "street"
    assert said["plan"]["parameters"]["cover"] == "noisy"
    assert said["plan"]["parameters"]["noise"]["pixels"] == 16
    for words in ("at most 16 pixels", "replace-one", "0.5-differentially private", "Not proven"):
        assert words in said["guarantee"]["statement"]
    assert "settled_event" not in said
    assert any("of brightness on average" in note for note in run.notes)
    Receipt.read(tmp_path / "safe" / "receipt.json").verify_ledger(project.ledger)
    assert verify(project.ledger).releases == 1


def test_another_run_on_the_same_files_draws_other_noise_and_is_charged_again(
    project: Project, tmp_path: Path
) -> None:
    source = paint(tmp_path / "a.png")
    go(source, tmp_path / "one.png")
    go(source, tmp_path / "two.png")
    one, two = (np.array(Image.open(tmp_path / name)) for name in ("one.png", "two.png"))
    assert not np.array_equal(one, two)
    assert np.array_equal(one[:, :5], two[:, :5])
    assert spent(project) == 2


def test_without_budget_nothing_is_written(project: Project, tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png")
    go(source, tmp_path / "one.png", cover_options={"epsilon": 3})
    there = sorted(tmp_path.rglob("*.png"))
    with pytest.raises(BudgetSpent, match="street/all"):
        go(tmp_path, tmp_path.parent / f"{tmp_path.name}-out" / "deep", cover_options={"epsilon": 2})
    assert sorted(tmp_path.rglob("*.png")) == there
    assert not (tmp_path.parent / f"{tmp_path.name}-out").exists()
    assert spent(project) == 3


def test_what_is_done_is_not_drawn_again_and_what_is_done_again_is_charged_again(
    project: Project, tmp_path: Path
) -> None:
    for number in range(2):
        paint(tmp_path / "photos" / f"{number}.png")
    safe = tmp_path / "safe"
    go(tmp_path / "photos", safe)
    kept = (safe / "0.png").read_bytes()
    again = go(tmp_path / "photos", safe, resume=True)
    assert again.skipped == 2
    assert body(again)["settled_event"] == PureDP(0).to_data()
    assert spent(project) == 1
    (safe / "1.png").unlink()
    assert go(tmp_path / "photos", safe, resume=True).skipped == 1
    assert (safe / "0.png").read_bytes() == kept
    assert spent(project) == 2


def test_a_run_that_finds_nothing_to_hide_costs_nothing(project: Project, tmp_path: Path) -> None:
    run = go(paint(tmp_path / "a.png", patch=False), tmp_path / "safe.png")
    assert body(run)["settled_event"] == PureDP(0).to_data()
    assert spent(project) == 0


def test_a_run_that_fails_after_a_draw_stays_charged(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("sfumato.redaction.images.redact.write_picture", broken)
    with pytest.raises(sfumato.core.errors.MediaError):  # type: ignore[attr-defined]
        go(paint(tmp_path / "a.png"), tmp_path / "safe.png")
    assert not (tmp_path / "safe.png").exists()
    assert spent(project) == 1


def test_another_number_of_pixels_is_another_run_for_resume(tmp_path: Path) -> None:
    declared(tmp_path, RULES + RULES.replace("street", "square").replace("16", "4"))
    source = paint(tmp_path / "a.png")
    go(source, tmp_path / "safe.png", cover_options={"pixels": 16})
    assert go(source, tmp_path / "safe.png", resume=True, cover_options={"pixels": 16}).skipped == 1
    assert go(source, tmp_path / "safe.png", resume=True, cover_options={"pixels": 4}).skipped == 0


# --- refusals ----------------------------------------------------------------------------------------------


def test_outside_a_project_it_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match=r"sfumato init.*unit = \"16 pixels\""):
        go(paint(tmp_path / "a.png"), tmp_path / "safe.png", cover="dp-pixelate")
    assert not (tmp_path / "safe.png").exists()


@pytest.mark.parametrize(
    ("rules", "options", "words"),
    [
        ("", {}, "there is none of 16 pixels"),
        (RULES, {"pixels": 4}, "there is none of 4 pixels"),
        (
            RULES + '[populations.people]\nunit = "person"\nepsilon = 1',
            {"population": "people"},
            "is not of 16",
        ),
    ],
)
def test_without_a_population_of_these_pixels_it_is_refused(
    tmp_path: Path, rules: str, options: dict[str, Any], words: str
) -> None:
    declared(tmp_path, rules)
    with pytest.raises(PolicyRefused, match=words):
        go(paint(tmp_path / "a.png"), tmp_path / "safe.png", cover_options=options)


def test_which_population_and_share_pay_must_be_plain(tmp_path: Path) -> None:
    shares = "\n[populations.square.shares.{}]\nepsilon = 2\n"
    declared(tmp_path, RULES + RULES.replace("street", "square") + shares.format("a") + shares.format("b"))
    source = paint(tmp_path / "a.png")
    with pytest.raises(InvalidRequest, match="population=street"):
        go(source, tmp_path / "safe.png")
    with pytest.raises(InvalidRequest, match="share=a"):
        go(source, tmp_path / "safe.png", cover_options={"population": "square"})
    with pytest.raises(UnknownName, match="share of square"):
        go(source, tmp_path / "safe.png", cover_options={"population": "square", "share": "all"})
    with pytest.raises(UnknownName, match="did you mean 'square'"):
        go(source, tmp_path / "safe.png", cover_options={"population": "sqare"})
    run = go(source, tmp_path / "safe.png", cover_options={"population": "square", "share": "b"})
    assert body(run)["plan"]["share"] == "b"


def test_a_policy_that_rules_a_secure_cover_refuses_it(tmp_path: Path) -> None:
    declared(tmp_path, RULES, cover="fill")
    with pytest.raises(PolicyRefused, match=r"redact\.cover"):
        go(paint(tmp_path / "a.png"), tmp_path / "safe.png", cover="dp-pixelate")


def test_a_file_of_several_pictures_is_refused(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMedia, match="could be averaged"):
        go(paint(tmp_path / "a.gif", frames=3), tmp_path / "safe.gif")
    assert spent(project) == 0


def test_writing_is_not_left_to_it(project: Project) -> None:
    assert Settings(hide=("text",), cover="dp-pixelate").cover_of("text") == "solid"


def test_a_seeded_gate_is_refused(project: Project, tmp_path: Path) -> None:
    door = project.gate(entropy=sfumato.core.entropy.SeededEntropy(3))  # type: ignore[attr-defined]
    with pytest.raises(InvalidRequest, match="takes no seed"):
        run_files(paint(tmp_path / "a.png"), tmp_path / "safe.png", gate=door, finder=toys)
    assert not (tmp_path / "safe.png").exists()


# --- in Python ---------------------------------------------------------------------------------------------


def test_a_redactor_charges_once_for_all_its_pictures(project: Project, tmp_path: Path) -> None:
    picture = np.array(Image.open(paint(tmp_path / "a.png")))
    with sfumato.Redactor(finder=toys) as redactor:
        one, two = redactor(picture).image, redactor(picture).image
    assert not np.array_equal(one, two)
    assert redactor.receipt is not None
    assert redactor.receipt.guarantee == "proven"
    assert spent(project) == 1


def test_one_class_under_noise_and_another_under_fill(project: Project, tmp_path: Path) -> None:
    def both(settings: Settings) -> Finder:
        other = ToyDetector("person")
        other.name = "other"
        return Finder([ToyDetector(), other], settings.hide)

    run = go(
        paint(tmp_path / "a.png"),
        tmp_path / "safe.png",
        hide=("face", "person"),
        covers={"person": "fill"},
        finder=both,
    )
    statement = body(run)["guarantee"]["statement"]
    assert statement.index("'dp-pixelate' the whole run") < statement.index("Not proven")
    assert "'fill'" in statement


# --- which pixels ------------------------------------------------------------------------------------------


class Silence:
    """No noise at all: shows which pixels a grid was taken from."""

    drawn = 0

    def add(self, values: NDArray[np.int64], scale: Fraction) -> NDArray[np.int64]:
        self.drawn += len(values)
        return values.copy()


def bare(**wishes: Any) -> Job:
    """Return a job whose grids have no noise."""
    chosen = Settings(cover="dp-pixelate", **wishes)
    cover = build(epsilon=1000, pixels=1, grid=4)
    return Job(chosen, Finder([ToyDetector()]), DpPixelate(cover.epsilon, 1, 4, noise=Silence()))  # type: ignore[arg-type]


def scanned(path: Path, job: Job) -> tuple[Scan, list[Track], Places]:
    form = target_of(Path("out.mkv"))
    found = survey(path, form, job.settings)
    scan = together(path.name, form, found, _look(path, found, OwnHands(job), lambda done, total: None))
    return scan, tracks_of(scan, job), places(job, path, scan.canvas.width, scan.canvas.height)


def painted(path: Path, job: Job, scan: Scan, tracks: list[Track], fixed: Places, looks: Any) -> list[Any]:
    """Return the planes of every covered frame."""
    brush, done = Brush(job, scan.canvas, tracks, fixed, looks), []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            own = scan.canvas.draw(frame)
            brush.paint(own, index, interlaced=False)
            done.append([plane.copy() for plane in planes(own)])
    return done


def test_a_track_shows_one_grid_in_all_frames_so_their_difference_is_nought(
    clip: Callable[..., Path], project: Project
) -> None:
    path = clip("a.mp4", frames=14, squares=lambda index: [(40, 30, 32)], shade=lambda index: 3 * index)
    gate = project.gate()
    ready = sfumato.redaction.plan.prepare(policy=gate.policy, kinds=("video",), finder=toys)  # type: ignore[attr-defined]
    with gate.open(ready.plan) as permit:
        charged = ready.charged(permit)
        job = charged.jobs["video"]
        scan, tracks, fixed = scanned(path, job)
        looks = looks_of(path, scan, tracks, fixed, job)
        frames = painted(path, job, scan, tracks, fixed, looks)
        assert list(looks) == [("track", 0)]
        drawn = charged.noise.drawn if charged.noise else 0
        inside = [frame[0][40:54, 50:62] for frame in frames]
        assert all(np.array_equal(inside[0], one) for one in inside)
        again = painted(path, job, scan, tracks, fixed, looks)
        assert all(np.array_equal(a[0], b[0]) for a, b in zip(frames, again, strict=True))
        assert charged.noise is not None
        assert charged.noise.drawn == drawn  # painting draws nothing
        fresh = painted(path, job, scan, tracks, fixed, looks_of(path, scan, tracks, fixed, job))
        assert not np.array_equal(fresh[0][0][40:54, 50:62], inside[0])
        permit.settle()


def test_the_frame_is_the_one_with_the_largest_box_and_no_other_frame_is_read(
    clip: Callable[..., Path],
) -> None:
    def grows(index: int) -> list[tuple[int, int, int]]:
        return [(40, 20, 20 + 2 * min(index, 6))]

    plain = clip("a.mp4", frames=12, squares=grows)
    other = clip("b.mp4", frames=12, squares=grows, shade=lambda index: 60 if index in (2, 11) else 0)
    job = bare(every=1)
    scan, tracks, fixed = scanned(plain, job)
    one = looks_of(plain, scan, tracks, fixed, job)["track", 0]
    two = looks_of(other, scan, tracks, fixed, job)["track", 0]
    assert np.abs(one.rgb - two.rgb).max() < 0.02
    chosen = clip("c.mp4", frames=12, squares=grows, shade=lambda index: 60 if index == 6 else 0)
    three = looks_of(chosen, scan, tracks, fixed, job)["track", 0]
    assert np.abs(one.rgb - three.rgb).max() > 0.1


def test_a_zone_shows_a_grid_of_the_first_frame(clip: Callable[..., Path]) -> None:
    path = clip("a.mp4", frames=6, squares=lambda index: [], shade=lambda index: 20 * index)
    job = bare(zones=(Zone("sign", ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))),))
    scan, tracks, fixed = scanned(path, job)
    frames = painted(path, job, scan, tracks, fixed, looks_of(path, scan, tracks, fixed, job))
    first = frames[0][0][30:66, 50:110]
    assert all(np.array_equal(frame[0][30:66, 50:110], first) for frame in frames)
    assert frames[5][0][5, 5] != frames[0][0][5, 5]


def test_a_region_without_a_grid_shows_grey(clip: Callable[..., Path]) -> None:
    path, job = clip("a.mp4", frames=3, squares=lambda index: [(40, 30, 32)]), bare()
    scan, tracks, fixed = scanned(path, job)
    luma = painted(path, job, scan, tracks, fixed, {})[0][0]
    assert np.ptp(luma[32:60, 42:70]) == 0


def test_without_a_permit_a_video_is_refused_and_not_written(
    clip: Callable[..., Path], tmp_path: Path
) -> None:
    job = Job(Settings(cover="dp-pixelate"), Finder([ToyDetector()]), build(pixels=1))
    with pytest.raises(InvalidRequest, match="through a permit"):
        redact_video_file(clip("a.mp4", frames=4), tmp_path / "safe.mp4", job)
    assert not (tmp_path / "safe.mp4").exists()


def test_in_another_process_there_is_no_permit(project: Project) -> None:
    gate: Gate = project.gate()
    ready = sfumato.redaction.plan.prepare(policy=gate.policy, finder=toys)  # type: ignore[attr-defined]
    with gate.open(ready.plan) as permit:
        cover = ready.charged(permit).jobs["image"].cover
        away = pickle.loads(pickle.dumps(cover))
        with pytest.raises(InvalidRequest, match="in the process that holds it"):
            away.apply(np.zeros((9, 9, 3), np.uint8), np.array([[0, 0, 9, 9]], np.int32))
        permit.settle()


def test_what_is_kept_is_kept_and_where_boxes_meet_nothing_is_open() -> None:
    picture = np.full((80, 100, 3), 90, np.uint8)
    picture[20:60, 30:70] = MAGENTA
    zone = Zone("clock", ((0.5, 0.25), (0.7, 0.25), (0.7, 0.5), (0.5, 0.5)))
    safe, _ = redact_pixels(picture, bare(zones=(zone,), keep=("clock",)))
    assert (safe[22:38, 52:68] == MAGENTA).all()
    assert (safe[45:58, 32:68] != MAGENTA).any()


# --- the look of fill --------------------------------------------------------------------------------------


def tinted(**wishes: Any) -> Job:
    return Job(Settings(**wishes), Finder([ToyDetector()]), build_fill(look="track"))


def test_a_tint_tells_tracks_apart_stays_the_same_and_is_blind_to_the_inside(
    clip: Callable[..., Path],
) -> None:
    path, job = clip("a.mp4", frames=8, squares=lambda index: [(20, 30, 24), (110, 30, 24)]), tinted()
    scan, tracks, fixed = scanned(path, job)
    frames = painted(path, job, scan, tracks, fixed, None)
    left, right = ([frame[2][18:22, at : at + 4].mean() for frame in frames] for at in (14, 59))
    assert abs(np.mean(left) - np.mean(right)) > 8
    assert np.ptp(left) < 3
    plain = painted(path, Job(job.settings, job.finder, build_fill()), scan, tracks, fixed, None)
    assert np.array_equal(plain[0][0][:10], frames[0][0][:10])

    scan.sights.clear()
    dark = clip("b.mp4", frames=8, squares=lambda index: [])  # the same surroundings, nothing inside
    other = painted(dark, job, scan, tracks, fixed, None)
    assert np.abs(frames[3][0][34:50, 24:40].astype(int) - other[3][0][34:50, 24:40]).max() <= 3


def test_pictures_are_tinted_too_and_other_looks_are_refused() -> None:
    picture = np.full((80, 100, 3), 90, np.uint8)
    picture[20:60, 30:70] = MAGENTA
    safe, _ = redact_pixels(picture, tinted())
    assert np.ptp(safe[40, 50].astype(int)) > 20
    with pytest.raises(InvalidRequest, match="'plain' or 'track'"):
        build_fill(look="spots")


def flicker(frames: list[Any], box: tuple[slice, slice]) -> float:
    luma = [frame[0][box].astype(int) for frame in frames]
    return float(np.mean([np.abs(one - two).mean() for one, two in itertools.pairwise(luma)]))


def test_a_tinted_fill_is_calm_where_its_surroundings_are_not(clip: Callable[..., Path]) -> None:
    path = clip(
        "a.mp4", frames=12, squares=lambda index: [(60, 30, 30)], shade=lambda index: 40 * (index % 2)
    )
    job = tinted()
    scan, tracks, fixed = scanned(path, job)
    tracks = [replace(tracks[0], first=0, xyxy=np.tile(np.float32([60, 30, 90, 60]), (12, 1)))]
    box = (slice(20, 64), slice(52, 98))
    calm = flicker(painted(path, job, scan, tracks, fixed, None)[1:], box)
    plain = flicker(
        painted(path, Job(job.settings, job.finder, build_fill()), scan, tracks, fixed, None)[1:], box
    )
    assert plain > 20
    assert calm < plain / 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_calm_fill_is_a_function_of_outside_pixels_in_every_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = ((40, 60), (20, 30), (20, 30))
    ways = [[rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes] for _ in range(4)]
    boxes = [np.array([[10 + 2 * at, 8, 30 + 3 * at, 28 + at]], np.int32) for at in range(4)]

    def shown(secret: int) -> list[NDArray[np.uint8]]:
        calm, done, hide = Calm((2, 2)), [], np.random.default_rng(secret)
        for at, (frame, region) in enumerate(zip(ways, boxes, strict=True)):
            planes_ = [plane.copy() for plane in frame]
            x1, y1, x2, y2 = region[0]
            planes_[0][y1:y2, x1:x2] = hide.integers(0, 256, (y2 - y1, x2 - x1))
            cx1, cy1, cx2, cy2 = in_chroma((x1, y1, x2, y2), (2, 2))
            for plane in planes_[1:]:
                plane[cy1:cy2, cx1:cx2] = hide.integers(0, 256, (cy2 - cy1, cx2 - cx1))
            apply_yuv(build_fill(look="track"), planes_, region, subsampling=(2, 2))
            calm.steady(planes_, [Spot(("track", 0), region[0], region)], at)
            done += planes_
        return done

    for one, two in zip(shown(1), shown(2), strict=True):
        assert np.array_equal(one, two)


def test_after_a_gap_a_track_begins_anew() -> None:
    region = np.array([[0, 0, 8, 8]], np.int32)
    spots = [Spot(("track", 0), region[0], region)]
    for gap, value in ((1, 40), (2, 200)):
        calm = Calm((1, 1))
        calm.steady([np.full((8, 8), 0, np.uint8)], spots, 5)
        plane = np.full((8, 8), 200, np.uint8)
        calm.steady([plane], spots, 5 + gap)
        assert (plane == value).all()
