"""Pictures come in whole or are listed, each with whose it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from PIL import Image  # noqa: E402

from sfumato.core.errors import BatchFailed, InvalidRequest, MediaError, MediaTooLarge, UnknownName  # noqa: E402
from sfumato.core.project import Project  # noqa: E402
from sfumato.data.add import add  # noqa: E402
from sfumato.data.door import Request  # noqa: E402
from sfumato.data.opening import open_data  # noqa: E402
from sfumato.data.use import use  # noqa: E402
from sfumato.training.data import Form, Pictures, from_arrays, from_folder, from_npz, from_use, scaled  # noqa: E402
from sfumato.training.decoding import decode  # noqa: E402


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    paint(root / "cat" / "p1_a.png", (200, 0, 0))
    paint(root / "cat" / "p1_b.png", (100, 0, 0))
    paint(root / "dog" / "p2_a.jpg", (0, 200, 0))
    paint(root / "dog" / "deep" / "p3_a.png", (0, 100, 0))
    (root / "dog" / "notes.txt").write_text("no picture")
    return root


def test_a_folder_per_class(folder: Path) -> None:
    data = from_folder(folder, Form(side=8))
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert len(set(data.units)) == 4
    assert not data.by_unit
    assert dict(data.left_out) == {"dog/notes.txt": "not a picture"}
    image, label = data[1]
    assert (image.shape, image.dtype, label) == ((3, 8, 8), torch.float32, 0)
    assert torch.allclose(image[:, 0, 0], scaled(torch.tensor([100, 0, 0])))
    images, labels = data.batch([3, 0])
    assert images.shape == (2, 3, 8, 8)
    assert labels.tolist() == [1, 0]
    assert data.batch([])[0].shape == (0, 3, 8, 8)
    assert data.bytes_of(slice(1, 3)).shape == (2, 3, 8, 8)


def test_people_with_several_pictures_are_one_unit(folder: Path) -> None:
    data = from_folder(folder, unit="name:(p[0-9]+)_")
    assert data.units == ("p1", "p1", "p3", "p2")
    assert data.by_unit
    with pytest.raises(InvalidRequest, match="4 of 4 pictures have no privacy unit"):
        from_folder(folder, unit="name:(q[0-9]+)_")


def test_what_does_not_fit_in_memory_is_decoded_again(folder: Path) -> None:
    kept, again = (from_folder(folder, Form(side=8, memory=size)) for size in (2**20, 0))
    assert again._decoded is None
    assert torch.equal(kept.bytes_of(range(4)), again.bytes_of(range(4)))
    assert again.batch([])[0].shape == (0, 3, 8, 8)


def test_bad_pictures_are_listed_and_nothing_is_lost(folder: Path) -> None:
    (folder / "cat" / "empty.png").write_bytes(b"")
    whole = (folder / "dog" / "p2_a.jpg").read_bytes()
    (folder / "dog" / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    says = r"2 of 6 pictures do not read: cat/empty.png.*skip_bad = true"
    with pytest.raises(BatchFailed, match=says) as error:
        from_folder(folder)
    assert [name for name, _ in error.value.failures] == ["cat/empty.png", "dog/torn.jpg"]
    data = from_folder(folder, Form(skip_bad=True))
    assert len(data) == len(data.units) == len(data.labels) == 4
    assert {"cat/empty.png", "dog/torn.jpg"} <= {name for name, _ in data.left_out}


def test_classes_may_be_named_beforehand(folder: Path) -> None:
    data = from_folder(folder, classes=("bird", "dog", "cat"))
    assert data.labels.tolist() == [2, 2, 1, 1]
    with pytest.raises(UnknownName, match="unknown class 'cat'"):
        from_folder(folder, classes=("cats", "dog"))


def test_pictures_outside_of_a_class_are_refused(folder: Path) -> None:
    paint(folder / "loose.png", (1, 2, 3))
    with pytest.raises(InvalidRequest, match=r"1 pictures .* in no class: loose.png"):
        from_folder(folder)


@pytest.mark.parametrize("settings", [{"side": 0}, {"side": True}, {"channels": 4}])
def test_a_form_that_cannot_be_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest):
        Form(**settings)


def test_the_folder_is_no_unit_and_must_exist(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="folders are the classes"):
        from_folder(folder, unit="folder")
    with pytest.raises(InvalidRequest, match="not a folder"):
        from_folder(folder / "nowhere")


POLICY = """
[project]
name = "clinic"
[purposes.research]
lawful_basis = "contract"
actions = ["train"]
[populations.patients]
unit = "patient"
epsilon = 10
delta = 1e-5
[datasets.scans]
keep = ["folder"]
unit = "name:(p[0-9]+)_"
population = "patients"
purposes = ["research"]
"""


def clinic(root: Path, folder: Path) -> Project:
    from sfumato.redaction.images.strip import stripped

    Project.init(root).close()
    (root / "sfumato.toml").write_text(POLICY)
    project = Project(root)
    catalogue, store = open_data(project)
    add(catalogue, store, project.policy, Request(dataset="scans", path=folder), strip=stripped)
    return project


def test_a_version_of_the_catalogue(folder: Path, tmp_path: Path) -> None:
    project = clinic(tmp_path / "clinic", folder)
    used = use(project, "scans", "research", "train")
    data = from_use(used, "folder", Form(side=8))
    assert len(data) == 4
    assert data.classes == ("cat", "dog")
    assert sorted(data.labels.tolist()) == [0, 0, 1, 1]
    assert len(set(data.units)) == 3
    assert not any("p1" in str(unit) for unit in data.units)
    assert data.used is used
    again = from_use(used, "folder", Form(side=8, memory=0))
    assert torch.equal(again.bytes_of(range(4)), data.bytes_of(range(4)))
    with pytest.raises(InvalidRequest, match=r"4 pictures .* no field 'diagnosis'.*keep = \[\"diagnosis\"\]"):
        from_use(used, "diagnosis")


def test_arrays_of_several_shapes() -> None:
    grey = np.zeros((3, 8, 8), np.uint8)
    for pictures, channels in (
        (grey, 1),
        (np.zeros((3, 8, 8, 3), np.uint8), 3),
        (np.zeros((3, 3, 8, 8), np.uint8), 3),
        (np.zeros((3, 8, 8, 1), np.uint8), 1),
    ):
        data = from_arrays(pictures, np.array([0, 2, 1]))
        assert data[0][0].shape == (channels, 8, 8)
        assert data.classes == ("0", "1", "2")
        assert data.units == (0, 1, 2)
    assert from_arrays(grey, [0, 0, 1], units=["a", "a", "b"]).by_unit


@pytest.mark.parametrize(
    ("pictures", "labels", "extra", "says"),
    [
        (np.zeros((3, 8, 8)), [0, 1, 2], {}, "uint8 squares"),
        (np.zeros((3, 8, 9), np.uint8), [0, 1, 2], {}, "uint8 squares"),
        (np.zeros((3, 8, 8), np.uint8), [0, 1], {}, r"labels must be \(3,\)"),
        (np.zeros((3, 8, 8), np.uint8), [0.0, 1, 2], {}, "whole numbers"),
        (np.zeros((3, 8, 8), np.uint8), [-1, 1, 2], {}, "-1..2"),
        (np.zeros((3, 8, 8), np.uint8), [0, 1, 2], {"classes": ["a", "b"]}, "2 classes"),
        (np.zeros((3, 8, 8), np.uint8), [0, 1, 2], {"units": ["a"]}, "1 units for 3"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(pictures: object, labels: object, extra: dict, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        from_arrays(pictures, labels, **extra)


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, x_train=np.ones((2, 8, 8), np.uint8), y_train=[0, 1], unit_train=["a", "a"])
    data = from_npz(path)
    assert isinstance(data, Pictures)
    assert data.units == ("a", "a")
    with pytest.raises(UnknownName, match="x_train"):
        from_npz(path, "test")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(InvalidRequest, match="does not read as npz"):
        from_npz(tmp_path / "bad.npz")
    np.savez(path, x_train=np.array([None]), y_train=[0])
    with pytest.raises(InvalidRequest, match="does not read as npz"):
        from_npz(path)


def test_fashion_mnist_reads(testdata) -> None:
    data = from_npz(testdata("tables/fashion_mnist.npz"), "test")
    assert (len(data), data.form.side, len(data.classes)) == (10_000, 28, 10)


def test_a_picture_is_cut_to_its_middle_upright(tmp_path: Path) -> None:
    wide = Image.new("RGB", (30, 10), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", side=4)[2] > 200).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    half = Image.new("RGB", (8, 8), (0, 0, 0))
    half.paste((255, 255, 255), (0, 0, 8, 4))
    half.save(tmp_path / "turned.png", exif=exif)
    upright = decode(tmp_path / "turned.png", side=8, channels=1)[0]
    assert (upright[:, 4:] == 255).all()
    assert (upright[:, :4] == 0).all()


def test_deep_pictures_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert (decode(tmp_path / "deep.png", side=4, channels=1) == 0x80).all()


def test_bombs_and_rubbish_are_refused(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png", (1, 2, 3))
    with pytest.raises(MediaTooLarge, match="12x8"):
        decode(path, side=4, max_pixels=50)
    with pytest.raises(MediaError, match="does not decode"):
        decode(b"rubbish", side=4)
