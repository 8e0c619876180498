"""The allow-list of HEIC and AVIF: boxes that say how to decode pixels, and items that are pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_STILL = (
    "ftyp meta mdat hdlr pitm iloc iinf infe iref iprp ipco ipma idat ispe pixi hvcC av1C colr auxC pasp clap"
)
_MOVING = "moov mvhd trak tkhd tref edts elst mdia mdhd minf vmhd nmhd dinf dref url"
_SAMPLES = "stbl stsd stts stsc stsz stco co64 stss ctts"
#: Boxes needed to show a picture or a sequence; what is not here is named as a leftover.
BOXES = {name.encode().ljust(4) for name in f"{_STILL} {_MOVING} {_SAMPLES}".split()}
#: Boxes that hold boxes -> bytes of their own before the first one.
_PARENTS = {b"meta": 4} | dict.fromkeys((b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl"), 0)
ITEMS = {b"hvc1", b"av01", b"grid"}
#: Names that encoders give their own items and handlers.
_NAMES = {b"", b"Color", b"Alpha", b"libavif", b"PictureHandler"}


def box_leftovers(data: bytes) -> Iterator[str]:
    """Yield a name for every box or item not on the list, and for media bytes that no item uses."""
    media, used, moving = 0, 0, False
    for name, body in _boxes(data, 0, len(data)):
        if name not in BOXES:
            yield f"box {name.decode('latin-1')}"
        elif name == b"iinf":
            yield from _items(body)
        elif name == b"colr" and body[:4] != b"nclx":
            yield "colour profile"
        elif name == b"hdlr" and _text(body[24:]) not in _NAMES:
            yield f"handler name {_text(body[24:])!r}"
        elif name == b"mdat":
            media += len(body)
        elif name == b"iloc":
            used = _located(body)
        moving = moving or name == b"moov"
    if media > used and not moving:
        yield f"{media - used} bytes of media that no picture uses"


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at < end:
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        size = size or end - at
        if size < head or at + size > end:
            raise ValueError(f"box {name!r} of {size} bytes at {at}")
        yield name, data[at + head : at + size]
        if name in _PARENTS:
            yield from _boxes(data, at + head + _PARENTS[name], at + size)
        at += size


def _items(body: bytes) -> Iterator[str]:
    start = 6 if body[0] == 0 else 8
    for name, entry in _boxes(body, start, len(body)):
        wide = 2 if entry[0] == 3 else 0
        kind = entry[8 + wide : 12 + wide]
        text = _text(entry[12 + wide :])
        if name != b"infe" or entry[0] < 2 or kind not in ITEMS or text not in _NAMES:
            yield f"item {kind.decode('latin-1')} {text!r}"


def _text(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _located(body: bytes) -> int:
    """Return the bytes of media that the items of an `iloc` box use."""
    version = body[0]
    offset_size, length_size, base_size = body[4] >> 4, body[4] & 15, body[5] >> 4
    index_size = body[5] & 15 if version else 0
    id_size = 4 if version == 2 else 2
    at, total = 6 + id_size, 0
    for _ in range(int.from_bytes(body[6:at], "big")):
        at += id_size
        method = body[at + 1] & 15 if version else 0
        at += 2 if version else 0
        at += 2 + base_size
        extents = int.from_bytes(body[at : at + 2], "big")
        at += 2
        for _ in range(extents):
            at += index_size + offset_size
            total += int.from_bytes(body[at : at + length_size], "big") if method == 0 else 0
            at += length_size
    return total
