"""Identifiers planted in every place a picture file has for them: none survives, and the check finds all."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from sfumato.core.errors import MediaError
from sfumato.redaction.images import redact as images
from sfumato.redaction.images import redact_image_file
from sfumato.redaction.images.metadata import leftovers
from sfumato.redaction.images.read import Picture
from sfumato.redaction.job import Job
from sfumato.vision.toy import MAGENTA

SECRET = "Ada Lovelace 51.5074N"
PLANTED = SECRET.encode()


def picture() -> Image.Image:
    y, x = np.mgrid[0:60, 0:80]
    pixels = np.stack([x * 3, y * 4, x + y], axis=2).astype(np.uint8)
    pixels[20:40, 30:50] = MAGENTA
    return Image.fromarray(pixels)


def exif_bytes() -> bytes:
    """Return EXIF with the secret as text, as UTF-16, in the maker's note, as GPS and in a thumbnail."""
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = exif[0x8298] = SECRET  # description, artist, copyright
    exif[0x9C9D] = SECRET.encode("utf-16-le")  # XPAuthor
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + SECRET.encode("utf-16-be")
    exif.get_ifd(0x8769)[0x927C] = PLANTED
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[29] = SECRET
    return exif.tobytes()


def xmp() -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>' + PLANTED + b"</dc:creator></x:xmpmeta>"


def profile() -> bytes:
    return PLANTED + bytes(200)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def coded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture().save(file, kind, **options)
    return file.getvalue()


def jpegs() -> dict[str, bytes]:
    plain = coded("JPEG", quality=90)
    thumbnail = b"\xff\xd8" + segment(0xFE, PLANTED) + b"\xff\xd9"
    jfif = b"JFIF\0\1\1\0\0\1\0\1\7\1" + PLANTED  # a thumbnail of 7 x 1 pixels: the secret's 21 bytes
    assert len(PLANTED) == 21

    def after_start(extra: bytes) -> bytes:
        return plain[:2] + extra + plain[2:]

    return {
        "EXIF": coded("JPEG", exif=exif_bytes()),
        "EXIF thumbnail": after_start(segment(0xE1, b"Exif\0\0" + exif_bytes()[6:] + thumbnail)),
        "XMP": coded("JPEG", xmp=xmp()),
        "IPTC": after_start(
            segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x20\x1c\x02\x50" + PLANTED)
        ),
        "ICC": coded("JPEG", icc_profile=profile()),
        "comment": coded("JPEG", comment=PLANTED),
        "second comment": after_start(segment(0xFE, b"one") + segment(0xFE, PLANTED)),
        "JFIF thumbnail": plain[:2] + segment(0xE0, jfif) + plain[20:],
        "JFXX thumbnail": after_start(segment(0xE0, b"JFXX\0\x10" + thumbnail)),
        "private APP5": after_start(segment(0xE5, PLANTED)),
        "long APP14": after_start(segment(0xEE, b"Adobe\0\x64\0\0\0\0\1" + PLANTED)),
        "after the end": plain + b"MotionPhoto_Data" + PLANTED,
        "after the end, as video": plain + b"\0\0\0\x18ftypmp42" + PLANTED,
        "between scans": coded("JPEG", progressive=True).replace(
            b"\xff\xda", segment(0xFE, PLANTED) + b"\xff\xda"
        ),
    }


def pngs() -> dict[str, bytes]:
    plain = coded("PNG")

    def before_end(extra: bytes) -> bytes:
        return plain[:-12] + extra + plain[-12:]

    text = PngImagePlugin.PngInfo()
    text.add_text("Author", SECRET)
    text.add_itxt("Comment", SECRET)
    return {
        "tEXt and iTXt": coded("PNG", pnginfo=text),
        "zTXt": before_end(chunk(b"zTXt", b"Author\0\0" + zlib.compress(PLANTED, 0))),
        "eXIf": coded("PNG", exif=exif_bytes()),
        "XMP": before_end(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp())),
        "time and unknown text": before_end(chunk(b"tIME", bytes(7)) + chunk(b"teXt", PLANTED)),
        "ICC": plain[:33] + chunk(b"iCCP", PLANTED + b"\0\0" + zlib.compress(profile(), 0)) + plain[33:],
        "private chunk": before_end(chunk(b"gpSx", PLANTED)),
        "before the pixels": plain[:33] + chunk(b"tEXt", b"GPS\0" + PLANTED) + plain[33:],
        "after the end": plain + PLANTED,
    }


def webps() -> dict[str, bytes]:
    full = coded("WEBP", exif=exif_bytes(), xmp=xmp(), icc_profile=profile())
    plain = coded("WEBP")
    extra = riff_chunk(b"SECR", PLANTED)
    grown = bytearray(full + extra)
    grown[4:8] = struct.pack("<I", len(grown) - 8)
    return {"EXIF, XMP and ICC": full, "private chunk": bytes(grown), "after the end": plain + PLANTED}


def tiffs() -> dict[str, bytes]:
    def tagged(*tags: Any, **options: Any) -> bytes:
        file = io.BytesIO()
        tifffile.imwrite(file, np.asarray(picture()), photometric="rgb", extratags=tags, **options)
        return file.getvalue()

    deep = io.BytesIO()
    tifffile.imwrite(
        deep,
        np.asarray(picture()).astype(np.uint16) * 257,
        photometric="rgb",
        extratags=[(315, "s", 0, SECRET, True)],
    )
    plain = tagged()
    return {
        "description and software": tagged(description=SECRET, software=SECRET),
        "artist": tagged((315, "s", 0, SECRET, True)),
        "GeoTIFF": tagged((34737, "s", 0, SECRET, True), (33550, "d", 3, (1.0, 1.0, 0.0), True)),
        "XMP": tagged((700, "B", len(xmp()), xmp(), True)),
        "IPTC": tagged((33723, "B", len(PLANTED), PLANTED, True)),
        "Photoshop": tagged((34377, "B", len(PLANTED), PLANTED, True)),
        "EXIF": coded("TIFF", exif=exif_bytes()),
        "ICC": tagged((34675, "B", len(profile()), profile(), True)),
        "private tag": tagged((65000, "B", len(PLANTED), PLANTED, True)),
        "16 bits": deep.getvalue(),
        "after the end": plain + PLANTED,
    }


def gifs() -> dict[str, bytes]:
    plain = coded("GIF")

    def before_end(label: int, body: bytes) -> bytes:
        return plain[:-1] + bytes([0x21, label]) + body + b"\0;"

    secret = bytes([len(PLANTED)]) + PLANTED
    return {
        "comment": coded("GIF", comment=PLANTED),
        "late comment": before_end(0xFE, secret),
        "XMP": before_end(0xFF, b"\x0bXMP DataXMP" + secret),
        "plain text": before_end(0x01, b"\x0c" + bytes(12) + secret),
        "long loop": before_end(0xFF, b"\x0bNETSCAPE2.0\x03\x01\0\0" + secret),
        "after the end": plain + PLANTED,
    }


def bmps() -> dict[str, bytes]:
    plain = coded("BMP")
    moved = plain[:10] + struct.pack("<I", 54 + 21) + plain[14:54] + PLANTED + plain[54:]
    return {"before the pixels": moved, "after the end": plain + PLANTED}


def boxed() -> dict[str, bytes]:
    file = io.BytesIO()
    pillow_heif.from_pillow(picture()).save(file, exif=exif_bytes(), xmp=xmp(), quality=80)
    heic = file.getvalue()
    avif = coded("AVIF", exif=exif_bytes(), xmp=xmp(), icc_profile=profile())
    box = struct.pack(">I4s", 8 + len(PLANTED), b"uuid") + PLANTED
    return {"HEIC": heic, "AVIF": avif, "HEIC, private box": heic + box, "AVIF, free box": avif + box}


SUITES: dict[str, Callable[[], dict[str, bytes]]] = {
    "a.jpg": jpegs,
    "a.png": pngs,
    "a.webp": webps,
    "a.tif": tiffs,
    "a.gif": gifs,
    "a.bmp": bmps,
    "a.heif": boxed,
}
CASES = [
    pytest.param(name, data, id=f"{name[2:]} {place}")
    for name, suite in SUITES.items()
    for place, data in suite().items()
]


def holds_secret(data: bytes) -> bool:
    forms = [SECRET.encode(form) for form in ("utf-8", "utf-16-le", "utf-16-be")]
    return any(form in data for form in [*forms, b"Ada", b"Lovelace", b"51.5074"])


@pytest.mark.parametrize(("name", "data"), CASES)
def test_nothing_planted_survives(
    tmp_path: Path, toy_job: Callable[..., Job], name: str, data: bytes
) -> None:
    source, target = tmp_path / name, tmp_path / "out" / name
    source.write_bytes(data)
    assert holds_secret(data)
    assert leftovers(source), "the check must see what was planted"
    outcome = redact_image_file(source, target, toy_job())
    assert outcome.regions == {"face": 1}
    assert leftovers(target) == []
    assert not holds_secret(target.read_bytes())


def keeps_exif(picture: Picture, path: Path) -> None:
    """A broken twin of the writer: it covers the pixels and hands the EXIF on."""
    image = Image.fromarray(picture.pages[0].pixels)
    image.save(path, picture.kind.upper(), exif=exif_bytes())


def keeps_comment(picture: Picture, path: Path) -> None:
    """Another: a library's own greeting in the file."""
    image = Image.fromarray(picture.pages[0].pixels)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "somebody's library 1.0")
    image.save(path, picture.kind.upper(), pnginfo=text, comment=b"somebody's library 1.0")


@pytest.mark.parametrize(
    ("kind", "writer"),
    [(kind, keeps_exif) for kind in ("JPEG", "PNG", "WEBP", "AVIF")]
    + [(kind, keeps_comment) for kind in ("JPEG", "PNG")],
)
def test_a_writer_that_keeps_metadata_is_caught(
    tmp_path: Path, toy_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, kind: str, writer: Any
) -> None:
    monkeypatch.setattr(images, "write_picture", writer)
    source = tmp_path / "a.any"
    source.write_bytes(coded(kind))
    with pytest.raises(MediaError, match="still held"):
        redact_image_file(source, tmp_path / "out" / "a.any", toy_job())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_structure_that_does_not_walk_is_a_leftover(tmp_path: Path) -> None:
    for name, data in (("a.png", coded("PNG")[:70]), ("a.jpg", coded("JPEG")[:300]), ("a.txt", b"hello")):
        path = tmp_path / name
        path.write_bytes(data)
        assert len(leftovers(path)) == 1
