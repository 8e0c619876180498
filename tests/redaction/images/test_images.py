"""Pictures through the file function and the array function: what is covered, what is kept."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, JpegImagePlugin

from sfumato.core.errors import InvalidRequest, MediaTooLarge, UnreadableMedia, UnsupportedMedia
from sfumato.redaction.images import redact as images
from sfumato.redaction.images import redact_image_file, redact_pixels
from sfumato.redaction.images.read import MAX_FRAMES, read_picture
from sfumato.redaction.images.views import views
from sfumato.redaction.job import Job
from sfumato.redaction.pixels import array_of
from sfumato.redaction.plan import build_cover
from sfumato.redaction.settings import Settings
from sfumato.vision.finder import make_finder
from sfumato.vision.toy import MAGENTA, ToyDetector

MakeJob = Callable[..., Job]
PATCH = (slice(40, 70), slice(60, 100))
#: The patch with the margins of a face, corners included: 0.3 of its sides, 0.555 above and 0.15 below.
REGION = (slice(23, 75), slice(48, 112))


def scene(width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x % 256, y % 256, (x + y) // 2 % 256], axis=2).astype(np.uint8)
    picture[PATCH] = MAGENTA
    return picture


def deep(alpha: bool = False) -> NDArray[np.uint16]:
    picture = scene().astype(np.uint16) * 257
    picture[:10] += 77  # bits that 8 could not hold
    return np.dstack([picture, np.full(picture.shape[:2], 65535, np.uint16)]) if alpha else picture


def coded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_16(picture: NDArray[np.uint16]) -> bytes:
    order = [2, 1, 0, 3][: picture.shape[2]]
    return bytes(cv2.imencode(".png", np.ascontiguousarray(picture[:, :, order]))[1].tobytes())


def tiff(picture: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, picture, **options)
    return file.getvalue()


@pytest.fixture
def redact(tmp_path: Path, toy_job: MakeJob) -> Callable[..., tuple[Path, Any]]:
    """Return a function that redacts bytes as a file of a name and gives the output and the outcome."""

    def run(name: str, data: bytes, **settings: Any) -> tuple[Path, Any]:
        source, target = tmp_path / name, tmp_path / "out" / name
        source.write_bytes(data)
        before = hashlib.sha256(data).hexdigest()
        outcome = redact_image_file(source, target, toy_job(**settings))
        assert hashlib.sha256(source.read_bytes()).hexdigest() == before
        assert not list(target.parent.glob(".*"))  # no file left beside it
        return target, outcome

    return run


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image.copy() if image.format != "JPEG" else image


def still_there(picture: NDArray[Any]) -> int:
    return len(ToyDetector(threshold=0.1).detect(np.ascontiguousarray(picture[:, :, :3].astype(np.uint8))))


# --- arrays


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("alpha", [False, True])
def test_arrays_are_covered_in_every_channel_and_nowhere_else(
    toy_job: MakeJob, dtype: str, alpha: bool
) -> None:
    scale = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[dtype]
    picture = (scene() * np.array(scale)).astype(dtype)
    if alpha:
        picture = np.dstack([picture, np.full(picture.shape[:2], 255 * scale, dtype)])
    before = picture.copy()
    safe, boxes = redact_pixels(picture, toy_job(cover="solid"))
    assert np.array_equal(picture, before)
    assert safe.dtype == picture.dtype
    assert boxes.labels == ("face",)
    assert not safe[PATCH][:, :, :3].any()
    outside = np.ones(safe.shape[:2], bool)
    outside[REGION] = False
    assert np.array_equal(safe[outside], picture[outside])


def test_grey_arrays_pass_and_have_no_magenta(toy_job: MakeJob) -> None:
    picture = scene()[:, :, 0]
    safe, boxes = redact_pixels(picture, toy_job())
    assert len(boxes) == 0
    assert np.array_equal(safe, picture)


def test_what_transparency_hides_is_found_and_covered(toy_job: MakeJob) -> None:
    picture = np.dstack([scene(), np.zeros((120, 160), np.uint8)])
    safe, boxes = redact_pixels(picture, toy_job(cover="solid"))
    assert len(boxes) == 1
    assert safe[50, 70].tolist() == [0, 0, 0, 255]


def test_what_only_shows_when_blended_is_found_too(toy_job: MakeJob) -> None:
    picture = np.full((60, 60, 4), 255, np.uint8)
    picture[20:40, 20:40] = (255, 0, 255, 255)
    picture[28:32, 20:40, :3] = (255, 255, 255)  # raw, the patch falls apart; shown, it is whole
    picture[28:32, 20:40, 3] = 0
    safe, boxes = redact_pixels(picture, toy_job(cover="solid"))
    assert len(boxes) >= 2
    assert not safe[20:40, 20:40, :3].any()


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((0, 5, 3), np.uint8), np.zeros((4, 4, 5), np.uint8), np.zeros(4), np.zeros((4, 4), bool)],
)
def test_arrays_that_are_no_picture_are_refused(toy_job: MakeJob, wrong: NDArray[Any]) -> None:
    with pytest.raises(InvalidRequest, match="a picture is"):
        redact_pixels(wrong, toy_job())


# --- files: what is kept


def test_a_real_picture_comes_out_covered_and_the_rest_untouched(redact: Any) -> None:
    data = pytest.importorskip("skimage.data", reason="its portrait is the picture: pip install scikit-image")
    astronaut = data.astronaut()
    astronaut[60:200, 160:290] = MAGENTA
    target, outcome = redact("astronaut.png", coded(Image.fromarray(astronaut), "PNG"))
    safe = np.asarray(opened(target))
    assert (outcome.kind, outcome.regions, outcome.width, outcome.height) == ("image", {"face": 1}, 512, 512)
    assert np.array_equal(safe[300:], astronaut[300:])
    assert still_there(safe) == 0


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [35, 92])
def test_jpeg_keeps_its_tables_subsampling_and_scans(
    redact: Any, progressive: bool, sampling: int, quality: int
) -> None:
    data = coded(
        Image.fromarray(scene()), "JPEG", quality=quality, subsampling=sampling, progressive=progressive
    )
    target, _ = redact("a.jpg", data)
    before, after = Image.open(io.BytesIO(data)), opened(target)
    assert after.quantization == before.quantization  # type: ignore[attr-defined]
    assert JpegImagePlugin.get_sampling(after) == sampling
    assert bool(after.info.get("progressive")) == progressive


@pytest.mark.parametrize(
    ("mode", "kind", "name", "kept"),
    [
        ("L", "JPEG", "a.jpg", "L"),
        ("CMYK", "JPEG", "a.jpg", "CMYK"),
        ("RGBA", "PNG", "a.png", "RGBA"),
        ("LA", "PNG", "a.png", "LA"),
        ("P", "PNG", "a.png", "RGB"),
        ("1", "PNG", "a.png", "L"),
        ("RGBA", "WEBP", "a.webp", "RGBA"),
        ("CMYK", "TIFF", "a.tif", "CMYK"),
        ("LA", "TIFF", "a.tif", "LA"),
        ("RGBA", "TIFF", "a.tif", "RGBA"),
        ("1", "TIFF", "a.tif", "L"),
        ("F", "TIFF", "a.tif", "F"),
        ("I", "TIFF", "a.tif", "I"),
        ("RGB", "BMP", "a.bmp", "RGB"),
        ("P", "BMP", "a.bmp", "RGB"),
        ("RGB", "AVIF", "a.avif", "RGB"),
    ],
)
def test_kinds_of_pixels(redact: Any, mode: str, kind: str, name: str, kept: str) -> None:
    image = Image.fromarray(scene())
    if "A" in mode:
        alpha = Image.linear_gradient("L").resize(image.size)
        image.putalpha(alpha)
    image = image.convert(mode)
    target, _ = redact(name, coded(image, kind))
    after = opened(target)
    assert (after.mode, after.size, after.format or kind) == (kept, (160, 120), kind)
    if mode not in ("1", "P", "AVIF") and kind not in ("JPEG", "WEBP", "AVIF"):
        assert np.array_equal(np.asarray(after)[90:], np.asarray(image)[90:])


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("P", "PNG"), ("P", "BMP"), ("CMYK", "TIFF")])
def test_colours_are_covered_whatever_they_are_stored_as(redact: Any, mode: str, kind: str) -> None:
    target, outcome = redact("a.any", coded(Image.fromarray(scene()).convert(mode), kind))
    assert outcome.regions == {"face": 1}
    assert still_there(np.asarray(opened(target).convert("RGB"))) == 0


@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bits_stay_sixteen_bits(redact: Any, alpha: bool) -> None:
    picture = deep(alpha)
    extra = {"extrasamples": ["unassalpha"]} if alpha else {}
    for name, data in (("a.png", png_16(picture)), ("a.tif", tiff(picture, photometric="rgb", **extra))):
        target, outcome = redact(name, data)
        after = read_picture(target, 10**6).pages[0].pixels
        assert outcome.regions == {"face": 1}
        assert after.dtype == np.uint16
        assert np.array_equal(after[:22], picture[:22])
        assert still_there(after >> 8) == 0


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_stays(redact: Any, name: str) -> None:
    grey = deep()[:, :, 1].copy()
    data = tiff(grey) if name == "a.tif" else coded(Image.fromarray(grey), "PNG")
    target, _ = redact(name, data)
    assert np.array_equal(np.asarray(opened(target)), grey)


def test_lossless_webp_stays_lossless_and_lossy_says_so(redact: Any) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    target, outcome = redact("a.webp", coded(Image.fromarray(picture), "WEBP", lossless=True))
    assert np.array_equal(np.asarray(opened(target)), picture)
    assert outcome.notes == ()
    _, outcome = redact("b.webp", coded(Image.fromarray(picture), "WEBP"))
    assert "quality" in outcome.notes[0]


def test_the_content_decides_and_a_lying_name_is_noted(redact: Any) -> None:
    target, outcome = redact("a.png", coded(Image.fromarray(scene()), "JPEG"))
    assert opened(target).format == "JPEG"
    assert "content is jpeg" in outcome.notes[0]


def test_heic_is_written_as_heic(redact: Any) -> None:
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(scene())).save(file, quality=90)
    target, outcome = redact("a.heic", file.getvalue())
    after = np.asarray(pillow_heif.open_heif(target).to_pillow())
    assert outcome.regions == {"face": 1}
    assert after.shape == (120, 160, 3)
    assert still_there(after) == 0


# --- files: several pictures


def frames(count: int = 3) -> list[Image.Image]:
    """Patches that move, each frame with colours of its own."""
    plain = np.full((60, 90, 3), 120, np.uint8)
    pictures = []
    for index in range(count):
        picture = plain.copy()
        picture[10:25, 10 + 20 * index : 25 + 20 * index] = MAGENTA
        picture[50:, :, 0] = 40 * index
        pictures.append(Image.fromarray(picture))
    return pictures


@pytest.mark.parametrize(
    ("kind", "name"),
    [("GIF", "a.gif"), ("PNG", "a.png"), ("WEBP", "a.webp"), ("TIFF", "a.tif"), ("AVIF", "a.avif")],
)
def test_every_frame_is_covered_and_written(redact: Any, kind: str, name: str) -> None:
    first, *rest = frames()
    timing = {} if kind == "TIFF" else {"duration": [100, 200, 300]}
    target, outcome = redact(name, coded(first, kind, save_all=True, append_images=rest, **timing))
    assert (outcome.frames, outcome.regions) == (3, {"face": 3})
    with Image.open(target) as after:
        assert after.n_frames == 3
        for index in range(3):
            after.seek(index)
            after.load()
            assert still_there(np.asarray(after.convert("RGB"))) == 0
            if timing:
                assert round(after.info["duration"]) == timing["duration"][index]


def test_the_palette_of_a_gif_forgets_the_inside(redact: Any) -> None:
    first, *rest = frames()
    data = coded(first, "GIF", save_all=True, append_images=rest)
    assert bytes(MAGENTA) in data
    target, _ = redact("a.gif", data)
    assert bytes(MAGENTA) not in target.read_bytes()


def test_transparent_animations_stay_transparent(redact: Any) -> None:
    shown = []
    for image in frames():
        image.putalpha(Image.fromarray(np.repeat([[0] * 45 + [255] * 45], 60, axis=0).astype(np.uint8)))
        shown.append(image)
    for kind, name in (("GIF", "t.gif"), ("WEBP", "t.webp"), ("PNG", "t.png")):
        target, _ = redact(name, coded(shown[0], kind, save_all=True, append_images=shown[1:], lossless=True))
        with Image.open(target) as after:
            for index in range(after.n_frames):
                after.seek(index)
                alpha = np.asarray(after.convert("RGBA"))[:, :, 3]
                assert alpha[55, 80] == 255
                assert alpha[55, 5] == 0


def test_pages_of_different_kinds_and_sizes(redact: Any) -> None:
    pages = [
        Image.fromarray(scene()),
        Image.fromarray(scene()[:80, :90]).convert("CMYK"),
        Image.new("1", (9, 5)),
    ]
    target, outcome = redact("a.tif", coded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert outcome.frames == 3
    with Image.open(target) as after:
        found = []
        for index in range(after.n_frames):
            after.seek(index)
            found.append((after.mode, after.size))
    assert found == [("RGB", (160, 120)), ("CMYK", (90, 80)), ("L", (9, 5))]


def test_of_an_mpo_only_the_first_picture_is_kept(redact: Any) -> None:
    first, *rest = frames()
    data = coded(first, "MPO", save_all=True, append_images=rest)
    target, outcome = redact("a.jpg", data)
    assert outcome.frames == 1
    assert "first of 3" in outcome.notes[0]
    assert opened(target).format == "JPEG"
    assert len(target.read_bytes()) < len(data) / 2


# --- colour


def swapped_profile() -> bytes:
    """Return an ICC profile whose red and green primaries are swapped, gamma 1 apart from that like sRGB."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", 8) + b"Swapped\0" + bytes(78 + 12)
    tags = {
        b"desc": desc,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"gXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def test_colours_of_another_profile_become_srgb(redact: Any) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, :, 0] = 255
    data = coded(Image.fromarray(picture), "PNG", icc_profile=swapped_profile())
    target, outcome = redact("a.png", data)
    after = np.asarray(opened(target))[5, 5]
    assert after[1] > 240
    assert after[0] < 40
    assert "sRGB" in outcome.notes[0]
    assert "icc_profile" not in opened(target).info


def test_srgb_is_left_alone_and_a_damaged_profile_is_dropped(redact: Any) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.fromarray(scene()[:30])
    for profile, note in ((srgb, ()), (b"not a profile" * 20, ("a damaged colour profile was dropped",))):
        target, outcome = redact("a.png", coded(picture, "PNG", icc_profile=profile))
        assert np.array_equal(np.asarray(opened(target)), np.asarray(picture))
        assert outcome.notes == note


# --- limits and refusals


def test_a_file_is_not_written_over_itself(tmp_path: Path, toy_job: MakeJob) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(coded(Image.fromarray(scene()), "PNG"))
    link = tmp_path / "b.png"
    link.hardlink_to(source)
    for target in (source, tmp_path / "." / "a.png", link):
        with pytest.raises(InvalidRequest, match="over itself"):
            redact_image_file(source, target, toy_job())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_a_picture_over_the_limit_is_refused_before_it_is_decoded(
    redact: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.redaction.images.read._page", lambda *_: pytest.fail("decoded"))
    with pytest.raises(MediaTooLarge, match="160 x 120"):
        redact("a.any", coded(Image.fromarray(scene()), kind), max_pixels=160 * 120 - 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_pixels_are_summed_over_frames(redact: Any, kind: str) -> None:
    first, *rest = frames()
    data = coded(first, kind, save_all=True, append_images=rest)
    with pytest.raises(MediaTooLarge, match="up to page 2"):
        redact("a.any", data, max_pixels=60 * 90)
    redact("b.any", data, max_pixels=60 * 90 * 3)


def test_too_many_frames_are_refused(redact: Any) -> None:
    block = b"\x2c\0\0\0\0\1\0\1\0\0\x02\x02\x44\x01\0"
    data = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + block * (MAX_FRAMES + 1) + b";"
    with pytest.raises(MediaTooLarge, match=str(MAX_FRAMES)):
        redact("a.gif", data)


def test_pixels_that_two_decoders_read_differently_are_refused(redact: Any) -> None:
    data = tiff(deep(alpha=True) // 2, photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(UnsupportedMedia, match="differently"):
        redact("a.tif", data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tiff(deep(alpha=True), photometric="separated", planarconfig="contig"), "photometric 5"),
        (tiff(scene(), photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)]), "camera raw"),
        (coded(Image.frombytes("LAB", (160, 120), scene().tobytes()), "TIFF"), "LAB"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "camera raw"),
        (b"8BPS" + bytes(40), "Photoshop"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
    ],
)
def test_what_is_not_handled_is_named(redact: Any, data: bytes, why: str) -> None:
    with pytest.raises(UnsupportedMedia, match=why):
        redact("a.any", data)


def test_a_writer_that_changes_the_size_is_caught(redact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(picture: Any, path: Path) -> None:
        path.write_bytes(coded(Image.new("RGB", (5, 5)), "PNG"))

    monkeypatch.setattr(images, "write_picture", smaller)
    with pytest.raises(UnreadableMedia, match="another size"):
        redact("a.png", coded(Image.fromarray(scene()), "PNG"))


def test_a_suffix_that_is_no_kind_is_not_repeated(redact: Any) -> None:
    """A name may be a person's, and notes end in receipts and reports."""
    _, outcome = redact("scan of patient.Anna-Schmidt-1961", coded(Image.fromarray(scene()), "PNG"))
    assert outcome.notes == ("the content is png though the name says another kind; written as png",)


def seen(pixels: NDArray[Any], job: Job) -> int:
    return len(redact_pixels(pixels, job)[1])


@pytest.fixture(scope="module")
def faces() -> Job:
    settings = Settings()
    return Job(settings, make_finder(["face"]), build_cover(settings))


def portrait() -> NDArray[np.uint8]:
    from skimage.data import astronaut

    return np.asarray(astronaut())[:320, 60:380]


def test_sixteen_bits_with_a_narrow_range_are_seen(faces: Job) -> None:
    """As CT, X-ray and thermal cameras give them: a few thousand values somewhere in the range."""
    grey = portrait().mean(axis=2)
    for low, span in ((30_000, 1_000), (0, 65_535), (2_000, 1_500)):
        assert seen((low + grey / 255 * span).astype(np.uint16), faces) >= 1, (low, span)
    assert seen(np.full((300, 300), 30_000, np.uint16), faces) == 0


def test_a_face_in_the_alpha_plane_is_seen(faces: Job) -> None:
    for shade in (0, 128, 255):
        picture = np.full((320, 320, 4), shade, np.uint8)
        picture[:, :, 3] = portrait().mean(axis=2)
        assert seen(picture, faces) >= 1, shade
    assert seen(np.full((320, 320, 4), 128, np.uint8), faces) == 0


def test_numbers_below_nought_stay_numbers(faces: Job) -> None:
    """Mode "I" without a TIFF tag is signed, as CT numbers are."""
    numbers = (portrait().mean(axis=2) * 8 - 1000).astype(np.int32)
    pixels = array_of(Image.fromarray(numbers), 10**6)
    assert pixels.dtype == np.int32
    safe, boxes = redact_pixels(pixels, faces)
    assert len(boxes) >= 1
    assert safe.dtype == np.int32
    assert -1100 < safe.min() <= safe.max() < 1100


def test_views_take_little_more_room_than_the_picture() -> None:
    picture = np.zeros((3000, 3000, 4), np.uint8)
    picture[:, :, 3] = np.arange(3000)[:, None] % 256
    tracemalloc.start()
    try:
        for view in views(picture, ("red", "green", "blue", "alpha")):
            assert view.shape == (3000, 3000, 3)
            del view
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2.5 * picture.nbytes  # whole-picture floats took more than ten times as much
