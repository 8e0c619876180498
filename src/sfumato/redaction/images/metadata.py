"""What a written picture still holds beside its pixels: an allow-list, checked on the file's own structure.

The writer never hands metadata to an encoder; this is the independent check of that. It walks the
segments, chunks, tags or boxes of a file and names everything that is not needed to show its pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from sfumato.redaction.images.metadata_boxes import box_leftovers
from sfumato.redaction.images.metadata_tiff import tiff_leftovers
from sfumato.redaction.kinds import image_kind

PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"}
WEBP_CHUNKS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
#: VP8X flags: alpha and animation; ICC, EXIF and XMP have flags too, and are left out here.
WEBP_FLAGS = 0x10 | 0x02
JPEG_TABLES = {0xDB: "DQT", 0xC4: "DHT", 0xDD: "DRI", 0xC0: "SOF0", 0xC1: "SOF1", 0xC2: "SOF2", 0xDA: "SOS"}


def leftovers(path: Path) -> list[str]:
    """Return a name for everything in a picture file that is not needed to show its pixels.

    >>> leftovers(Path("redacted.jpg"))  # doctest: +SKIP
    []

    Guarantee:
        An empty list means: only segments, chunks, tags and boxes of the allow-list, without free text,
        and no byte before, between or after them. Watermarks inside the pixels are not looked for.

    Args:
        path: a JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF file.
    """
    data = path.read_bytes()
    walkers = {
        "jpeg": _jpeg,
        "png": _png,
        "webp": _webp,
        "gif": _gif,
        "bmp": _bmp,
        "tiff": tiff_leftovers,
        "heic": box_leftovers,
        "avif": box_leftovers,
    }
    kind = image_kind(data[:1024])
    if kind not in walkers:
        return [f"content of another kind ({kind or 'unknown'})"]
    try:
        return list(walkers[kind](data))
    except (IndexError, struct.error, ValueError, KeyError) as error:
        return [f"a structure that cannot be walked ({type(error).__name__}: {error})"]


def _jpeg(data: bytes) -> Iterator[str]:
    at = 2
    while True:
        if data[at] != 0xFF:
            yield f"bytes between segments at {at}"
            return
        while data[at + 1] == 0xFF:
            at += 1
        marker = data[at + 1]
        if marker == 0xD9:
            if at + 2 < len(data):
                yield f"{len(data) - at - 2} bytes after the end of the picture"
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if not (marker in JPEG_TABLES or _is_bare_header(marker, body)):
            yield f"JPEG segment {marker:02X} ({body[:12]!r})"
        at += 2 + length
        if marker == 0xDA:
            at = _scan_end(data, at)


def _is_bare_header(marker: int, body: bytes) -> bool:
    """Return whether a segment is a JFIF header without thumbnail or Adobe's colour transform."""
    if marker == 0xE0:
        return body[:5] == b"JFIF\0" and len(body) == 14 and body[12:14] == b"\0\0"
    return marker == 0xEE and body[:5] == b"Adobe" and len(body) == 12


def _scan_end(data: bytes, at: int) -> int:
    """Return where the marker after a scan's coded data starts."""
    while True:
        at = data.index(b"\xff", at)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7 and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _png(data: bytes) -> Iterator[str]:
    at = 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name not in PNG_CHUNKS:
            yield f"PNG chunk {name.decode('latin-1')}"
        at += 12 + length
        if name == b"IEND":
            break
    if at != len(data):
        yield f"{len(data) - at} bytes after the end of the picture"


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and body of every chunk of a WebP file, those inside animation frames too."""
    yield from _chunks(data, 12, len(data))


def _chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + length]
        if name == b"ANMF":
            yield from _chunks(data, at + 8 + 16, at + 8 + length)
        at += 8 + length + length % 2


def _webp(data: bytes) -> Iterator[str]:
    size = int.from_bytes(data[4:8], "little") + 8
    if size != len(data):
        yield f"{len(data) - size} bytes after the end of the picture"
    for name, body in riff_chunks(data):
        if name not in WEBP_CHUNKS:
            yield f"WebP chunk {name.decode('latin-1')}"
        elif name == b"VP8X" and body[0] & ~WEBP_FLAGS:
            yield f"WebP flags for metadata ({body[0]:#04x})"


def _gif(data: bytes) -> Iterator[str]:
    at = 13 + _table_size(data[10])
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            at = _blocks_end(data, at + 11 + _table_size(data[at + 9]))
        elif data[at] == 0x21:
            label, start, at = data[at + 1], at + 2, _blocks_end(data, at + 2)
            loop = (
                label == 0xFF and data[start : start + 14] == b"\x0bNETSCAPE2.0\x03\x01" and at == start + 17
            )
            if not (loop or (label == 0xF9 and at == start + 6)):
                yield f"GIF extension {label:02X} ({data[start + 1 : start + 12]!r})"
        else:
            yield f"bytes between GIF blocks at {at}"
            return
    if at + 1 < len(data):
        yield f"{len(data) - at - 1} bytes after the end of the picture"


def _table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks_end(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1


def _bmp(data: bytes) -> Iterator[str]:
    size, _, offset, header = struct.unpack_from("<IIII", data, 2)
    width, height, _, bits, packing, _, _, _, used = struct.unpack_from("<iiHHIIiiI", data, 18)
    if packing not in (0, 3):
        yield f"BMP compression {packing}"
    palette = 4 * (used or (1 << bits if bits <= 8 else 0))
    masks = 12 if header == 40 and packing == 3 else 0
    if offset != 14 + header + palette + masks:
        yield f"{offset - 14 - header - palette - masks} bytes before the BMP pixels"
    if header == 124 and any(data[14 + 112 : 14 + 120]):
        yield "BMP colour profile"
    end = offset + (width * bits + 31) // 32 * 4 * abs(height)
    if not size == end == len(data):
        yield f"{len(data) - end} bytes after the BMP pixels"
