"""Zones, things kept, only some classes, and a cover per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato import redact
from sfumato.core.errors import InvalidRequest, PolicyError, PolicyRefused, UnknownName
from sfumato.core.policy import Policy
from sfumato.redaction.images.redact import redact_pixels
from sfumato.redaction.job import Job
from sfumato.redaction.plan import build_cover, build_covers, prepare
from sfumato.redaction.request import Request, resolve
from sfumato.redaction.run import run_files
from sfumato.redaction.settings import Settings
from sfumato.redaction.zones import Pick, Zone, coarse, picks, without
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector

BOARD = Zone("board", ((0.1, 0.2), (0.5, 0.2), (0.5, 0.6), (0.1, 0.6)))
SLANT = Zone("slant", ((0.1, 0.1), (0.9, 0.3), (0.5, 0.9)))


def policy(rules: str) -> Policy:
    return Policy.parse(f'[project]\nname = "demo"\n[redact]\n{rules}')


def job(**given) -> Job:
    settings = Settings(hide=("face",), **{"cover": "solid", **given})
    cover = build_cover(settings)
    return Job(settings, Finder([ToyDetector()]), cover, build_covers(settings, cover))


def filled(rectangles, width=100, height=80) -> np.ndarray:
    mask = np.zeros((height, width), np.int32)
    for x1, y1, x2, y2 in rectangles:
        mask[y1:y2, x1:x2] += 1
    return mask


# Geometry


def test_a_rectangle_is_exact():
    assert BOARD.rectangles(100, 50).tolist() == [[10, 10, 50, 30]]
    assert BOARD.rectangles(100, 50, inner=True).tolist() == [[10, 10, 50, 30]]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=6))
def test_a_polygon_is_held_from_outside_and_from_inside(points):
    zone = Zone("z", tuple(points))
    outer, inner = filled(zone.rectangles(100, 80)), filled(zone.rectangles(100, 80, inner=True))
    assert not (inner.astype(bool) & ~outer.astype(bool)).any()
    for x, y in points:  # every corner lies in the outer one
        assert outer[min(int(y * 80), 79), min(int(x * 100), 99)]
    wide = filled(coarse(zone.rectangles(100, 80))).astype(bool)
    assert not (outer.astype(bool) & ~wide).any()


def test_pixels_of_a_slanted_zone_are_those_of_the_polygon():
    mask = filled(SLANT.rectangles(100, 80)) > 0
    area = 0.5 * abs((80 * 64) - (40 * 16))
    assert area < mask.sum() < area * 1.3
    assert mask[24, 50]
    assert not mask[70, 10]


_boxes = st.lists(st.tuples(*[st.integers(0, 20)] * 4), max_size=4)


@given(_boxes, _boxes)
def test_what_is_cut_out_is_cut_out_and_nothing_else(ones, others):
    regions, holes = (
        np.array([b for b in group if b[0] < b[2] and b[1] < b[3]], np.int32).reshape(-1, 4)
        for group in (ones, others)
    )
    expected = (filled(regions) > 0) & ~(filled(holes) > 0)
    assert ((filled(without(regions, holes)) > 0) == expected).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"points": ((0, 0), (1, 1))}, "three corners"),
        ({"points": ((0, 0), (200, 0), (0, 100))}, "pixels need `size`"),
        ({"points": ((0, 0), (200, 0), (0, 100)), "size": (100, 100)}, "pixels of"),
        ({"name": "a@b"}, "needs a name"),
    ],
)
def test_a_wrong_zone_is_refused(given, said):
    with pytest.raises(InvalidRequest, match=said):
        Zone(**{"name": "z", "points": BOARD.points, **given})


def test_things_kept_are_read_and_nonsense_is_refused():
    assert picks(["door", "face@0.4,0.3@2.5"]) == [Pick("face", 0.4, 0.3, 2.5)]
    for wrong in ("face@", "face@2,0.1", "face@a,b", "@0.1,0.1", "face@0.1,0.1@-1"):
        with pytest.raises(InvalidRequest, match="what is kept"):
            picks([wrong])


# Pictures


def picture() -> np.ndarray:
    image = np.random.default_rng(3).integers(20, 180, (80, 100, 3), np.uint8)
    image[10:20, 60:80] = MAGENTA
    image[50:60, 60:80] = MAGENTA
    return image


def test_a_zone_is_covered_and_a_kept_one_is_untouched():
    image = picture()
    safe, _ = redact_pixels(image, job(zones=(BOARD,)))
    assert (safe[16:48, 10:50] == 0).all()
    assert (safe[:, :10] == image[:, :10]).all()
    face = Zone("poster", ((0.6, 0.0), (0.9, 0.0), (0.9, 0.4), (0.6, 0.4)))
    safe, boxes = redact_pixels(image, job(zones=(face,), keep=("poster",)))
    assert (safe[:32, 60:90] == image[:32, 60:90]).all()
    assert (safe[50:60, 60:80] == 0).all()
    assert len(boxes) == 2


def test_one_thing_is_kept_and_the_other_is_not():
    image = picture()
    safe, boxes = redact_pixels(image, job(keep=("face@0.7,0.2",)))
    assert (safe[:30] == image[:30]).all()
    assert (safe[50:60, 60:80] == 0).all()
    assert len(boxes) == 1


def test_each_class_and_zone_has_its_own_cover():
    loud = Zone("loud", BOARD.points, cover="blur")
    image = picture()
    safe, _ = redact_pixels(image, job(cover="fill", covers={"face": "solid"}, zones=(loud,)))
    assert (safe[10:20, 60:80] == 0).all()
    assert not (safe[20:44, 14:46] == 0).all()
    assert (safe[16:48, 10:50] != image[16:48, 10:50]).any()


def test_a_zone_for_another_size_or_file_is_not_used():
    image = picture()
    for zone in (
        Zone("z", ((0, 0), (9, 0), (9, 9)), size=(640, 480)),
        Zone("z", BOARD.points, files="cam/*.png"),
    ):
        assert (redact_pixels(image, job(zones=(zone,)))[0][:, :50] == image[:, :50]).all()
    assert Zone("z", BOARD.points, files="cam/*.png").is_for(Path("/data/cam/1.png"))


# Policy and wishes


@pytest.mark.parametrize("label", ["text", "plate", "qr code", "barcode"])
def test_writing_is_never_blurred(label):
    for cover in ("blur", "pixelate"):
        with pytest.raises(InvalidRequest, match="Hill et al"):
            Settings(hide=(label,), covers={label: cover})
        assert Settings(hide=(label, "face"), cover=cover).cover_of(label) == "solid"
        assert Settings(hide=(label, "face"), cover=cover).cover_of("face") == cover
    assert Settings(hide=(label,)).cover_of(label) == "fill"


def test_keeping_needs_the_policys_leave():
    wish = Request(keep=("face@0.1,0.1",))
    assert resolve(wish).settings.keep == ("face@0.1,0.1",)
    with pytest.raises(PolicyRefused, match=r"redact\.allow"):
        resolve(wish, policy('hide = ["face"]'))
    assert resolve(wish, policy('allow = ["keep"]')).settings.keep == ("face@0.1,0.1",)


RULES = """
hide = ["face", "person"]
{allow}
[redact.covers]
person = "solid"
[[redact.zones]]
name = "board"
points = [[0.1, 0.2], [0.5, 0.2], [0.5, 0.6]]
"""


def test_only_narrows_where_the_policy_allows_it():
    strict, loose = policy(RULES.format(allow="")), policy(RULES.format(allow='allow = ["only"]'))
    assert [zone.name for zone in resolve(Request(), strict).settings.zones] == ["board"]
    with pytest.raises(PolicyRefused, match="leave out"):
        resolve(Request(only=("face",)), strict)
    whole = resolve(Request(only=("face", "people", "board")), strict).settings
    assert whole.hide == ("face", "people")
    narrow = resolve(Request(only=("board",)), loose).settings
    assert (narrow.hide, [zone.name for zone in narrow.zones]) == ((), ["board"])
    assert resolve(Request(only=("face",)), loose).settings.zones == ()
    with pytest.raises(InvalidRequest, match="one of them"):
        Request(only=("face",), hide=("face",))


def test_a_cosmetic_cover_for_one_class_is_refused_where_the_policys_is_secure():
    rules = policy(RULES.format(allow=""))
    assert resolve(Request(), rules).settings.cover_of("person") == "solid"
    for label in ("person", "people", "face", "*"):
        with pytest.raises(PolicyRefused, match="cosmetic"):
            resolve(Request(covers={label: "blur"}), rules)
    assert resolve(Request(covers={"person": "fill"}), rules).settings.cover_of("person") == "fill"


def test_a_policy_with_zones_comes_back_the_same():
    rules = policy(RULES.format(allow='allow = ["only", "keep"]'))
    assert Policy.parse(rules.to_toml()) == rules
    with pytest.raises(PolicyError, match=r"known keys here|did you mean 'points'"):
        policy(RULES.format(allow="").replace("points", "point"))
    with pytest.raises(PolicyError, match="shares in"):
        policy(RULES.format(allow="").replace("0.5, 0.2", "5, 0.2"))


def toy(settings):
    return Finder([ToyDetector()], ("face",)) if settings.hide else Finder([], ())


def test_zones_alone_need_no_detector():
    ready = prepare(Request(only=("board",), zones=(BOARD,)), kinds=("image", "video"))
    assert ready.models == []
    assert "No detector looked" in ready.plan.statement
    image = np.full((50, 100, 3), 200, np.uint8)
    safe = redact(image, only="board", zones=[BOARD], cover="solid").image
    assert (safe[10:30, 10:50] == 0).all()
    assert (safe[30:] == 200).all()


def test_what_is_kept_stands_in_the_statement_and_the_receipt():
    ready = prepare(Request(keep=("board", "face@0.5,0.5"), zones=(BOARD,)), finder=toy)
    assert "Kept visible, as asked: board; face@0.5,0.5" in ready.plan.statement
    assert ready.plan.parameters["settings"]["keep"] == ["board", "face@0.5,0.5"]
    with pytest.raises(UnknownName, match="zone"):
        prepare(Request(keep=("bord",), zones=(BOARD,)), finder=toy)
    with pytest.raises(InvalidRequest, match="not among the classes"):
        prepare(Request(keep=("person@0.5,0.5",)), finder=toy)


def test_each_setting_changes_the_digest():
    base = Settings()
    others = [
        Settings(covers={"face": "solid"}),
        Settings(zones=(BOARD,)),
        Settings(zones=(SLANT,)),
        Settings(keep=("face@0.1,0.1",)),
    ]
    assert len({one.digest({}) for one in (base, *others)}) == 5


def test_a_thing_is_not_kept_in_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    import cv2

    cv2.imwrite(str(tmp_path / "in" / "a.png"), picture())
    with pytest.raises(InvalidRequest, match="not in a folder"):
        run_files(tmp_path / "in", tmp_path / "out", Request(keep=("face@0.5,0.5",)), finder=toy)
    assert not (tmp_path / "out").exists()


# Videos


def video(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(12):
            image = np.full((96, 128, 3), 150, np.uint8)
            image[16:40, 16 + number : 40 + number] = MAGENTA
            image[56:80, 80:104] = MAGENTA
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return path


def frames(path: Path) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in source.decode(video=0)]


@pytest.mark.parametrize(("keep", "left"), [((), 0), (("face@0.25,0.3@0.2",), 1), (("wall",), 1)])
def test_zones_and_kept_tracks_hold_in_every_frame(tmp_path, keep, left):
    source = video(tmp_path / "in.mp4")
    wall = Zone("wall", ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)))
    floor = Zone("floor", ((0.0, 0.75), (0.5, 0.75), (0.5, 1.0), (0.0, 1.0)))
    zones = (floor, wall) if "wall" in keep else (floor,)
    wish = Request(zones=zones, keep=keep, cover="solid")
    run = run_files(source, tmp_path / "out.mp4", wish, finder=toy)
    done = frames(tmp_path / "out.mp4")
    assert len(done) == 12
    for number, frame in enumerate(done):
        assert frame[74:, :62].max() < 40
        assert frame[58:78, 82:102].max() < 40
        walker = frame[20:36, 20 + number : 36 + number]
        assert (walker[..., 0].min() > 150) == bool(left)
    assert run.regions["zone floor"] == 1
    assert any("kept visible" in note for note in run.notes) == bool(left)
