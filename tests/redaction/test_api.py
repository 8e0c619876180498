"""Redaction in Python: what goes in, what comes out, and how it is recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sfumato
from sfumato.core.errors import (
    InvalidRequest,
    MediaTooLarge,
    MissingModel,
    PolicyRefused,
    UnknownName,
    UnreadableMedia,
)
from sfumato.core.project import Project
from sfumato.core.verify import verify
from sfumato.redaction import api
from sfumato.redaction.settings import Settings
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector


def toys(settings: Settings) -> Finder:
    return Finder([ToyDetector()], settings.hide, thresholds=settings.thresholds)


def patch(channels: int = 3, dtype: Any = np.uint8) -> NDArray[Any]:
    """Return a picture with one magenta patch; channels 3 or 4."""
    most = np.iinfo(dtype).max
    pixels = np.full((60, 80, channels), most // 3, dtype)
    pixels[20:40, 30:55, :3] = np.array(MAGENTA, np.float64) / 255 * most
    if channels == 4:
        pixels[:, :, 3] = most
    return pixels


def found(pixels: NDArray[Any]) -> int:
    return len(ToyDetector().detect(np.ascontiguousarray(pixels[:, :, :3])))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    api._SHELF.clear()
    yield
    api._SHELF.clear()


def test_an_array_comes_back_safe_and_alike() -> None:
    for channels in (3, 4):
        picture = patch(channels)
        before = picture.copy()
        out = sfumato.redact(picture, finder=toys)
        assert (out.image.shape, out.image.dtype) == (picture.shape, picture.dtype)
        assert found(out.image) == 0
        assert found(picture) == 1  # what was given is not changed, and the check can fail
        assert np.array_equal(picture, before)
        assert "face" in out.regions.labels


def test_sixteen_bits_and_grey() -> None:
    deep = sfumato.redact(patch(3, np.uint16), finder=toys)
    assert deep.image.dtype == np.uint16
    assert found((deep.image >> 8).astype(np.uint8)) == 0
    for grey in (np.zeros((40, 50), np.uint8), np.zeros((40, 50, 1), np.uint8)):
        assert sfumato.redact(grey, finder=toys).image.shape == grey.shape


def test_bgr_is_swapped_both_ways() -> None:
    picture = patch()
    picture[0, 0] = (10, 20, 30)
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    bgr[20:40, 30:55] = (0, 90, 255)  # orange, seen as BGR; no magenta
    assert len(sfumato.redact(bgr, channels="BGR", finder=toys).regions) == 0
    bgr[20:40, 30:55] = MAGENTA[::-1]
    out = sfumato.redact(bgr, channels="BGR", finder=toys)
    assert len(out.regions) == 1
    assert out.image[0, 0].tolist() == [30, 20, 10]
    assert out.to_pil().getpixel((0, 0)) == (10, 20, 30)
    with pytest.raises(InvalidRequest, match="channels must be 'RGB' or 'BGR'"):
        sfumato.redact(bgr, channels="GBR")  # type: ignore[arg-type]


def test_channel_order_matters_to_the_detector() -> None:
    class Red(ToyDetector):
        def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Any:
            assert image[0, 0].tolist() == [200, 10, 20]
            return super().detect(image, floor=floor)

    picture = np.full((30, 30, 3), (20, 10, 200), np.uint8)
    finder = lambda settings: Finder([Red()], settings.hide)  # noqa: E731
    sfumato.redact(picture, channels="BGR", finder=finder)
    with pytest.raises(AssertionError):
        sfumato.redact(picture, channels="RGB", finder=finder)


def test_files_and_pillow_images_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(patch())
    picture.save(tmp_path / "turned.png", exif=exif)
    for given in (tmp_path / "turned.png", str(tmp_path / "turned.png"), Image.open(tmp_path / "turned.png")):
        out = sfumato.redact(given, finder=toys)
        assert out.image.shape == (80, 60, 3)
        assert found(out.image) == 0


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "YCbCr", "RGBA", "I;16"])
def test_every_kind_of_pillow_image(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(patch()).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.array(image).astype(np.uint16) * 257)
    out = sfumato.redact(image, finder=toys)
    assert out.image.shape[:2] == (60, 80)
    if mode in ("P", "CMYK", "YCbCr", "RGBA"):
        assert found(out.image) == 0
    assert out.to_pil().size == (80, 60)
    if mode == "CMYK":
        image.save(tmp_path / "cmyk.jpg")
        assert sfumato.redact(tmp_path / "cmyk.jpg", finder=toys).image.shape == (60, 80, 3)


def test_what_is_no_picture_is_refused(tmp_path: Path, clip: Callable[..., Path]) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    pages = Image.new("RGB", (20, 20))
    pages.save(tmp_path / "pages.tif", save_all=True, append_images=[pages])
    cases: list[tuple[Any, type[Exception], str]] = [
        ([[1, 2], [3, 4]], InvalidRequest, "NumPy array, a Pillow image or a path, got list"),
        (np.zeros((2, 2, 7), np.uint8), InvalidRequest, "a picture is"),
        (np.zeros((4, 4, 3), bool), InvalidRequest, "a picture is"),
        (np.zeros((0, 4, 3), np.uint8), InvalidRequest, "a picture is"),
        (tmp_path / "none.png", InvalidRequest, "there is no file"),
        (tmp_path / "cut.png", UnreadableMedia, "does not decode"),
        (tmp_path / "pages.tif", InvalidRequest, "holds 2 pictures.*redact_files"),
        (clip("a.mp4", frames=3), InvalidRequest, "is a video.*redact_files"),
    ]
    for given, error, why in cases:
        with pytest.raises(error, match=why):
            sfumato.redact(given, finder=toys)


def test_wrong_words_are_refused_with_the_nearest() -> None:
    picture = patch()
    for options, error, why in (
        ({"hide": "fase"}, UnknownName, "did you mean 'face'"),
        ({"hide": ["face", "person"]}, MissingModel, "models pull"),
        ({"cover": "solit"}, UnknownName, "did you mean 'solid'"),
        ({"treshold": 0.2}, UnknownName, "did you mean 'threshold'"),
        ({"threshold": 3}, InvalidRequest, "between 0 and 1"),
        ({"threshold": "high"}, InvalidRequest, "must be a number, got 'high'"),
        ({"threshold": {"face": "0.5"}}, InvalidRequest, "must be a number, got '0.5'"),
        ({"size": "640"}, InvalidRequest, "size must be a whole number, got '640'"),
        ({"threads": 1.5}, InvalidRequest, "threads must be a whole number, got 1.5"),
        ({"models": "x"}, InvalidRequest, "models must be a table.*got 'x'"),
        ({"hide": 3}, InvalidRequest, "hide must be names.*got 3"),
        ({"detectors": "centreface"}, UnknownName, "did you mean 'centerface'"),
    ):
        with pytest.raises(error, match=why):
            sfumato.redact(picture, **options)


def test_options_reach_the_settings() -> None:
    out = sfumato.redact(patch(), ("face",), "solid", cover_options={"colour": (1, 2, 3)}, finder=toys)
    assert out.image[30, 40].tolist() == [1, 2, 3]
    assert out.receipt is not None
    settings = out.receipt.body["facts"]["settings"]
    assert settings["cover"] == "solid"
    half = patch()
    half[23:40, 33:55] = 85  # a corner of the patch is left: score 0.25
    assert len(sfumato.redact(half, threshold=0.9, finder=toys).regions) == 0
    assert len(sfumato.redact(half, threshold={"face": 0.1}, margins={"face": 0}, finder=toys).regions) > 0


def test_saved_files_hold_pixels_only(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Anna"
    Image.fromarray(patch()).save(tmp_path / "a.jpg", exif=exif, comment=b"Anna")
    out = sfumato.redact(tmp_path / "a.jpg", finder=toys)
    for name in ("b.jpg", "b.png", "b.webp", "b.tif", "b.bmp"):
        assert b"Anna" not in out.save(tmp_path / name).read_bytes()
        again = np.array(Image.open(tmp_path / name).convert("RGB"))
        assert abs(again.astype(int) - out.image.astype(int)).mean() < 3, name
    bgr = sfumato.redact(np.full((9, 9, 3), (200, 0, 0), np.uint8), channels="BGR", finder=toys)
    bgr.save(tmp_path / "blue.png")
    assert Image.open(tmp_path / "blue.png").getpixel((0, 0)) == (0, 0, 200)


def test_saving_what_a_format_cannot_hold(tmp_path: Path) -> None:
    deep = sfumato.redact(patch(3, np.uint16), finder=toys)
    with pytest.raises(InvalidRequest, match=r"choose \.png or \.tiff"):
        deep.save(tmp_path / "deep.jpg")
    with pytest.raises(InvalidRequest, match="has no transparency"):
        sfumato.redact(patch(4), finder=toys).save(tmp_path / "clear.jpg")
    with pytest.raises(InvalidRequest, match=r"no picture is written to 'a\.txt'"):
        deep.save(tmp_path / "a.txt")
    with pytest.raises(InvalidRequest, match="Pillow has no image of uint16"):
        deep.to_pil()
    assert list(tmp_path.iterdir()) == []
    assert deep.save(tmp_path / "deep.png").stat().st_size > 0


def test_without_a_project_nothing_is_recorded() -> None:
    out = sfumato.redact(patch(), finder=toys)
    assert out.receipt is not None
    assert not out.receipt.recorded
    assert out.receipt.body["facts"]["pictures"] == 1
    assert out.receipt.body["facts"]["regions"] == {"face": 1}
    assert out.receipt.outputs == ()


def test_in_a_project_calls_are_recorded_and_bound(tmp_path: Path) -> None:
    project = Project.init(tmp_path, name="demo")
    out = sfumato.redact(patch(), finder=toys)
    assert out.receipt is not None
    out.receipt.verify_ledger(project.ledger)
    assert verify(project.ledger).releases == 1
    with pytest.raises(PolicyRefused, match="cosmetic"):
        sfumato.redact(patch(), cover="blur", finder=toys)
    assert verify(project.ledger).releases == 1


def test_a_redactor_settles_once_for_many(tmp_path: Path) -> None:
    project = Project.init(tmp_path, name="demo")
    with sfumato.Redactor(finder=toys) as redactor:
        outs = [redactor(patch()) for _ in range(5)]
        assert all(out.receipt is None for out in outs)
        assert redactor.receipt is None
    assert redactor.receipt is not None
    assert redactor.receipt.body["facts"]["pictures"] == 5
    assert redactor.receipt.body["facts"]["regions"] == {"face": 5}
    found_rows = verify(project.ledger)
    assert (found_rows.releases, found_rows.unfinished) == (1, ())
    with pytest.raises(InvalidRequest, match="inside its block"):
        redactor(patch())
    with pytest.raises(InvalidRequest, match="inside its block"):
        sfumato.Redactor(finder=toys)(patch())


def test_an_error_in_the_block_is_settled_after_a_release_and_void_before(tmp_path: Path) -> None:
    project = Project.init(tmp_path, name="demo")
    with pytest.raises(RuntimeError), sfumato.Redactor(finder=toys):
        raise RuntimeError
    assert [entry.kind for entry in project.ledger.entries()][-1] == "void"
    redactor = sfumato.Redactor(finder=toys)

    def stumble() -> None:
        with redactor:
            redactor(patch())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stumble()
    assert redactor.receipt is not None
    assert [entry.kind for entry in project.ledger.entries()][-1] == "settle"


def test_a_redactor_used_again_starts_at_nought(tmp_path: Path) -> None:
    project = Project.init(tmp_path, name="demo")
    redactor = sfumato.Redactor(finder=toys)
    counts = []
    for number in (2, 1, 0):
        with redactor:
            for _ in range(number):
                redactor(patch())
        assert redactor.receipt is not None
        counts.append(redactor.receipt.body["facts"]["pictures"])
    assert counts == [2, 1, 0]
    with pytest.raises(RuntimeError), redactor:
        raise RuntimeError
    assert [entry.kind for entry in project.ledger.entries()][-1] == "void"
    assert redactor.receipt is None
    with redactor:
        redactor(patch())
        with pytest.raises(InvalidRequest, match="in its block already"):
            redactor.__enter__()
    assert redactor.receipt.body["facts"]["pictures"] == 1


def test_files_come_under_their_own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.init(tmp_path / "here", name="here")
    other = Project.init(tmp_path / "other", name="other")
    away = tmp_path / "away"
    away.mkdir()
    for folder in (project.root, other.root, away):
        Image.fromarray(patch()).save(folder / "a.png")
    monkeypatch.chdir(away)
    out = sfumato.redact(project.root / "a.png", finder=toys)
    assert out.receipt is not None
    assert out.receipt.recorded
    with pytest.raises(PolicyRefused, match="cosmetic"):
        sfumato.redact(project.root / "a.png", cover="blur", finder=toys)
    monkeypatch.chdir(other.root)
    sfumato.redact(project.root / "a.png", finder=toys)
    assert (verify(project.ledger).releases, verify(other.ledger).releases) == (2, 0)
    with sfumato.Redactor(finder=toys) as redactor:
        redactor(other.root / "a.png")
        redactor(away / "a.png")
        with pytest.raises(InvalidRequest, match="lies in the project"):
            redactor(project.root / "a.png")


def test_the_limit_of_pixels_holds_for_arrays_too() -> None:
    for given in (patch(), Image.fromarray(patch())):
        with pytest.raises(MediaTooLarge, match="raise max_pixels"):
            sfumato.redact(given, max_pixels=100, finder=toys)


def test_a_bad_picture_does_not_end_the_block() -> None:
    with sfumato.Redactor(finder=toys) as redactor:
        with pytest.raises(InvalidRequest):
            redactor(np.zeros((2, 2, 9), np.uint8))
        redactor(patch())
    assert redactor.receipt is not None
    assert redactor.receipt.body["facts"]["pictures"] == 1


def test_threads_may_share_a_redactor() -> None:
    with sfumato.Redactor(finder=toys) as redactor:
        threads = [threading.Thread(target=lambda: [redactor(patch()) for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert redactor.receipt is not None
    assert redactor.receipt.body["facts"]["pictures"] == 80


def test_models_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Settings] = []

    def count(settings: Settings) -> Finder:
        built.append(settings)
        return toys(settings)

    monkeypatch.setattr("sfumato.redaction.plan.build_finder", count)
    for _ in range(3):
        sfumato.redact(patch())
    assert len(built) == 1
    sfumato.redact(patch(), cover="solid")
    assert len(built) == 2
    for size in range(64, 70):
        sfumato.redact(patch(), size=size)
    assert len(api._SHELF) == api._SHELF_SIZE
    sfumato.redact(patch())  # the oldest was let go
    assert len(built) == 9


def test_new_weights_under_an_old_name_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: list[Settings] = []

    def count(settings: Settings) -> Finder:
        built.append(settings)
        return toys(settings)

    monkeypatch.setattr("sfumato.redaction.plan.build_finder", count)
    weights = tmp_path / "w.onnx"
    for content in (b"one", b"two!", b"two!"):
        if not weights.exists() or weights.read_bytes() != content:
            weights.write_bytes(content)
        sfumato.redact(patch(), models={"centerface": weights})
    assert len(built) == 2


def test_a_real_face() -> None:
    from skimage.data import astronaut

    out = sfumato.redact(astronaut())
    assert out.regions.labels == ("face",)
    x1, y1, x2, y2 = out.regions.xyxy[0].astype(int)
    assert not np.array_equal(out.image[y1:y2, x1:x2], astronaut()[y1:y2, x1:x2])
    assert np.array_equal(out.image[400:], astronaut()[400:])
    assert len(sfumato.redact(out.image).regions) == 0
