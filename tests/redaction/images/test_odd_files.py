"""Odd and broken inputs: redacted, or named by one error of ours; never half written, never a crash."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from sfumato.core.errors import MediaError, MediaTooLarge, UnreadableMedia
from sfumato.redaction.images import redact_image_file
from sfumato.redaction.job import Job
from sfumato.redaction.kinds import image_kind, sniff
from sfumato.vision.toy import MAGENTA

MakeJob = Callable[..., Job]
KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")


def coded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    y, x = np.mgrid[0:60, 0:80]
    pixels = np.stack([x * 3, y * 4, x + y], axis=2).astype(np.uint8)
    pixels[20:40, 30:50] = MAGENTA
    image, file = Image.fromarray(pixels).convert(mode), io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(file, quality=80)
    else:
        image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """Return a PNG that declares a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def looping_tiff() -> bytes:
    data = bytearray(coded("TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    return bytes(data)


FRAME = coded("JPEG").index(b"\xff\xc0")
ODD: dict[str, tuple[str, bytes, type[MediaError] | None]] = {
    "CMYK": ("a.jpg", coded("JPEG", "CMYK"), None),
    "palette": ("a.png", coded("PNG", "P"), None),
    "16 bits": ("a.png", coded("PNG", "I;16"), None),
    "1 bit": ("a.tif", coded("TIFF", "1"), None),
    "wrong extension": ("a.png", coded("JPEG"), None),
    "no extension": ("picture", coded("WEBP"), None),
    "text after the picture": ("a.jpg", coded("JPEG") + b"tail" * 999, None),
    "one pixel": ("a.png", png(1, 1, bytes(4)), None),
    "one row": ("a.png", png(3000, 1, bytes(9001)), None),
    "pages in a loop": ("a.tif", looping_tiff(), None),
    "truncated JPEG": ("a.jpg", coded("JPEG", quality=95)[:900], UnreadableMedia),
    "truncated PNG": ("a.png", coded("PNG")[:120], UnreadableMedia),
    "header only": ("a.gif", coded("GIF")[:13], UnreadableMedia),
    "garbage": ("a.jpg", bytes(range(7, 250)) * 20, UnreadableMedia),
    "garbage after a good start": ("a.jpg", b"\xff\xd8\xff\xe0" + bytes(range(250)) * 20, UnreadableMedia),
    "zero bytes": ("a.webp", b"", UnreadableMedia),
    "a text file": ("a.png", b"this is not a picture\n", UnreadableMedia),
    "bomb PNG": ("a.png", png(100_000, 100_000), MediaTooLarge),
    "bomb JPEG": ("a.jpg", patched(coded("JPEG"), FRAME + 5, b"\xff\xff\xff\xff"), MediaTooLarge),
    "bomb BMP": ("a.bmp", patched(coded("BMP"), 18, struct.pack("<ii", 60_000, 60_000)), MediaTooLarge),
    "bomb GIF": ("a.gif", patched(coded("GIF"), 6, b"\xff\xff\xff\xff"), MediaTooLarge),
    "no size": ("a.png", png(0, 0), UnreadableMedia),
    "less data than declared": ("a.png", png(50, 50, bytes(100)), UnreadableMedia),
    "damaged checksum": ("a.png", patched(coded("PNG"), 45, b"\0\0\0\0"), UnreadableMedia),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_files(tmp_path: Path, toy_job: MakeJob, name: str) -> None:
    file, data, error = ODD[name]
    source, target = tmp_path / file, tmp_path / "out" / file
    source.write_bytes(data)
    if error is None:
        redact_image_file(source, target, toy_job())
        assert target.stat().st_size
    else:
        with pytest.raises(error, match=file):
            redact_image_file(source, target, toy_job())
        assert not target.exists()
    assert source.read_bytes() == data
    assert not target.parent.exists() or [path.name for path in target.parent.iterdir()] in ([], [file])


def test_an_older_output_stays_when_the_new_one_fails(tmp_path: Path, toy_job: MakeJob) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    source.write_bytes(coded("PNG")[:120])
    target.write_bytes(b"old")
    with pytest.raises(UnreadableMedia):
        redact_image_file(source, target, toy_job())
    assert target.read_bytes() == b"old"


def test_what_is_no_file_is_named(tmp_path: Path, toy_job: MakeJob) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    sources = [tmp_path, tmp_path / "absent.png", loop]
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.png")
        sources.append(tmp_path / "pipe.png")
    for source in sources:
        with pytest.raises(UnreadableMedia, match="not a regular file"):
            redact_image_file(source, tmp_path / "out.png", toy_job())
    assert not (tmp_path / "out.png").exists()


def test_a_file_without_permission_is_named(
    tmp_path: Path, toy_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(coded("PNG"))

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # a test run by root could open anything
    with pytest.raises(UnreadableMedia, match="Permission denied"):
        redact_image_file(source, tmp_path / "out.png", toy_job())


def test_pillow_is_left_as_it_was(tmp_path: Path, toy_job: MakeJob) -> None:
    from PIL import ImageFile

    def state() -> tuple[Any, ...]:
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, "HEIF" in Image.OPEN

    before = state()
    source = tmp_path / "a.heic"
    source.write_bytes(coded("HEIF"))
    redact_image_file(source, tmp_path / "out.heic", toy_job())
    assert state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_it_is_whole_or_an_error(tmp_path: Path, toy_job: MakeJob, kind: str) -> None:
    """A cut file either fails by name or, where only its tail was lost, comes out covered."""
    whole, job, failures = coded(kind), toy_job(), 0
    source, target = tmp_path / "a.any", tmp_path / "out" / "a.any"
    cuts = np.linspace(1, len(whole) - 1, 25).astype(int)
    for cut in cuts:
        source.write_bytes(whole[:cut])
        target.unlink(missing_ok=True)
        try:
            redact_image_file(source, target, job)
        except MediaError:
            failures += 1
            assert not target.exists()
    assert failures >= 20


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, toy_job: MakeJob, kind: str) -> None:
    whole, job = coded(kind), toy_job(max_pixels=1_000_000)
    source, target = tmp_path / "a.any", tmp_path / "out" / "a.any"
    rng = np.random.default_rng(list(kind.encode()))
    for _ in range(25):
        data = bytearray(whole)
        places = rng.integers(0, min(len(data), 400 if rng.random() < 0.5 else len(data)), rng.integers(1, 8))
        for place in places:
            data[place] = int(rng.integers(256))
        source.write_bytes(data)
        target.unlink(missing_ok=True)
        try:
            redact_image_file(source, target, job)
        except MediaError:
            assert not target.exists()
        if target.parent.exists():
            assert not list(target.parent.glob(".sfumato-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_sniffed_by_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(coded(kind))
    assert sniff(path) == "image"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypmp42" + bytes(20), "video"),
        (b"\0\0\0\x14ftypqt  " + bytes(20), "video"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video"),
        (b"\x1a\x45\xdf\xa3" + bytes(20), "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        ((b"\x47" + bytes(187)) * 5, "video"),
        ((bytes(4) + b"\x47" + bytes(187)) * 5, "video"),
        (b"FLV\x01" + bytes(20), "video"),
        (b"OggS" + bytes(20), "video"),
        (b"\0\0\0\x18ftypM4A " + bytes(20), None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"ID3" + bytes(20), None),
        (b"%PDF-1.7", None),
        (b"", None),
        (b"BM, this is a text", None),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "image"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "image"),
        (b"8BPS" + bytes(30), "image"),
    ],
)
def test_other_files_are_sniffed_by_content(tmp_path: Path, head: bytes, kind: str | None) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(head)
    assert sniff(path) == kind


def test_brands_tell_heic_from_avif() -> None:
    assert image_kind(b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf") == "heic"
    assert image_kind(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "avif"
    assert image_kind(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom") == "camera raw"
