"""Pictures by unit: what a unit gives depends on itself alone, and boxes follow their pixels."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("yaml", reason="needs PyYAML: pip install sfumato[data]")

from sfumato.core.errors import InvalidRequest, UnreadableMedia  # noqa: E402
from sfumato.training.detect.augment import NONE, Augment, Marked, shown  # noqa: E402
from sfumato.training.detect.data import Dataset, unit_table  # noqa: E402
from sfumato.training.detect.stream import Stream  # noqa: E402

MOVES = Augment(0, 0, 0, translate=0.2, scale=0.5, flip=0.5)


@pytest.fixture
def folder(tmp_path, scenes):
    return scenes(tmp_path / "set", 8)


def test_pictures_become_a_square_with_their_boxes(folder):
    data = Dataset(folder, side=64)
    assert (len(data), data.names) == (8, {0: "square", 1: "disc"})
    batch = data.batch([1, 5], step=0)
    assert batch.pixels.shape == (2, 3, 64, 64)
    assert len(batch.targets) == 2
    assert 0 <= float(batch.targets.boxes.min()) <= float(batch.targets.boxes.max()) <= 64


@pytest.mark.parametrize("seed", range(20))
def test_a_box_stays_on_its_pixels(seed):
    pixels = np.full((60, 90, 3), 90, np.uint8)
    pixels[20:44, 30:54] = 255
    one = Marked(pixels, np.array([0]), np.array([[30.0, 20, 54, 44]]))
    made = shown(one, 96, MOVES, Stream(b"k", seed))
    bright = np.argwhere(made.pixels[:, :, 0] > 172)
    if not len(made.boxes):
        assert len(bright) < 120
        return
    ys, xs = bright.min(0), bright.max(0) + 1
    assert np.abs(made.boxes[0] - (ys[1], ys[0], xs[1], xs[0])).max() <= 1.0


@pytest.mark.parametrize("seed", range(10))
def test_a_box_stays_on_its_pixels_in_a_mosaic(seed):
    def plain(level):
        pixels = np.full((60, 80, 3), 20, np.uint8)
        pixels[20:40, 30:54] = level
        return Marked(pixels, np.array([level // 60]), np.array([[30.0, 20, 54, 40]]))

    parts = [plain(level) for level in (60, 120, 180, 240)]
    made = shown(parts[0], 96, MOVES, Stream(b"k", seed), parts[1:])
    assert len(made.boxes) == len(made.classes)
    for kind, box in zip(made.classes, made.boxes, strict=True):
        x1, y1, x2, y2 = box.round().astype(int)
        inner = made.pixels[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2, 0]
        assert inner.size == 0 or np.abs(inner.astype(int) - 60 * int(kind)).max() <= 2


def test_nothing_changes_without_augmentation():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    made = shown(
        Marked(pixels, np.zeros(1, np.int64), np.array([[1.0, 2, 30, 40]])),
        64,
        NONE,
        Stream(b"k"),
    )
    assert np.array_equal(made.pixels, pixels)
    assert made.boxes.tolist() == [[1, 2, 30, 40]]


def rows_of(batch, index):
    return batch.pixels[index], batch.targets.boxes[index][batch.targets.real[index]]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_a_picture_becomes_does_not_depend_on_others(folder, tmp_path, scenes):
    public = scenes(tmp_path / "public", 5, seed=9)
    how = Augment(mosaic=0.5)
    data = Dataset(folder, side=64, augment=how, public=public, key=b"k")
    alone = rows_of(data.batch([3], step=7), 0)
    assert same(alone, rows_of(data.batch([1, 2, 3], step=7), 2))
    assert not torch.equal(alone[0], data.batch([3], step=8).pixels[0])
    name = data.pictures[3].name
    for number in (0, 1):
        (folder / "images" / "train" / f"{number:04d}.png").unlink()
    fewer = Dataset(folder, side=64, augment=how, public=public, key=b"k")
    place = [picture.name for picture in fewer.pictures].index(name)
    assert same(alone, rows_of(fewer.batch([place], step=7), 0))


def test_views_of_a_picture_follow_each_other(folder):
    data = Dataset(folder, side=64, augment=MOVES, key=b"k")
    batch = data.batch([0, 4], step=1, views=3)
    assert (len(batch.pixels), len(batch.targets)) == (6, 6)
    assert not torch.equal(batch.pixels[0], batch.pixels[1])
    assert torch.equal(batch.pixels[3], data.batch([4], step=1).pixels[0])


def test_each_picture_is_a_unit_or_has_one(folder):
    assert len(set(Dataset(folder, side=64).units)) == 8
    names = [f"images/train/{index:04d}.png" for index in range(8)]
    whose = {name: "ann" if index < 5 else f"p{index}" for index, name in enumerate(names)}
    assert Dataset(folder, units=whose, side=64).units == ("ann",) * 5 + ("p5", "p6", "p7")
    with pytest.raises(InvalidRequest, match="has no unit"):
        Dataset(folder, units={names[0]: "ann"}, side=64)


def test_an_empty_draw_is_an_empty_batch(folder):
    batch = Dataset(folder, side=64).batch([], step=0)
    assert (len(batch.pixels), len(batch.targets)) == (0, 0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"side": 100}, "multiple of 32"),
        ({"augment": Augment(mosaic=1.0)}, "public pictures only"),
    ],
)
def test_wrong_settings_are_refused(folder, settings, reason):
    with pytest.raises(InvalidRequest, match=reason):
        Dataset(folder, **settings)


@pytest.mark.parametrize("wrong", [{"scale": 1.0}, {"flip": -0.1}, {"hue": float("nan")}, {"mosaic": True}])
def test_wrong_augmentation_is_refused(wrong):
    with pytest.raises(InvalidRequest, match="augmentation"):
        Augment(**wrong)


def test_a_broken_picture_is_told(folder):
    (folder / "images" / "train" / "0002.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableMedia, match=r"0002\.png"):
        Dataset(folder, side=64).batch([2], step=0)


def test_public_pictures_with_other_classes_are_refused(folder, tmp_path, scenes):
    other = scenes(tmp_path / "other", 3, names=("cat", "dog"))
    with pytest.raises(InvalidRequest, match="classes of the private ones"):
        Dataset(folder, side=64, augment=Augment(mosaic=1.0), public=other)


def test_a_table_of_units(tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("picture,person\nimages/a.png,ann\nimages/b.png,bob\n")
    assert unit_table(table) == {"images/a.png": "ann", "images/b.png": "bob"}
    table.write_text("picture,person\nimages/a.png,ann\nimages/a.png,bob\n")
    with pytest.raises(InvalidRequest, match="twice"):
        unit_table(table)
    table.write_text("picture,person\nimages/a.png\n")
    with pytest.raises(InvalidRequest, match="row 2"):
        unit_table(table)


def test_a_stream_is_uniform_and_each_thing_has_its_own():
    numbers = Stream(b"k", "a", 1).uniform(-1, 3, 40_000)
    assert abs(numbers.mean() - 1) < 4 * 4 / (12 * 40_000) ** 0.5
    assert -1 <= numbers.min() < -0.99
    assert 2.99 < numbers.max() < 3
    assert not np.array_equal(numbers[:8], Stream(b"k", "a1").uniform(-1, 3, 8))
    assert sorted(Stream(b"k", "b").order(9)) == list(range(9))
    assert len(Stream(b"k", "c").uniform(0, 1, 0)) == 0
