"""The allow-list of TIFF: tags that say how to read pixels, and no byte outside them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

#: Tag -> name. All are numbers; a tag that is not here is named as a leftover.
TAGS = {
    254: "NewSubfileType",
    256: "ImageWidth",
    257: "ImageLength",
    258: "BitsPerSample",
    259: "Compression",
    262: "PhotometricInterpretation",
    266: "FillOrder",
    273: "StripOffsets",
    277: "SamplesPerPixel",
    278: "RowsPerStrip",
    279: "StripByteCounts",
    284: "PlanarConfiguration",
    297: "PageNumber",
    317: "Predictor",
    338: "ExtraSamples",
    339: "SampleFormat",
}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TEXT = (2, 7)
_MOST_PAGES = 100_000


def tiff_leftovers(data: bytes) -> Iterator[str]:
    """Yield a name for every tag not on the list, and for bytes that no tag leads to."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] != 42:
        yield "BigTIFF, which is not walked"
        return
    used = [(0, 8)]
    offset = struct.unpack_from(order + "I", data, 4)[0]
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) > _MOST_PAGES:
            yield "a loop of TIFF pages"
            return
        seen.add(offset)
        count = struct.unpack_from(order + "H", data, offset)[0]
        strips: dict[int, tuple[int, ...]] = {}
        for index in range(count):
            at = offset + 2 + 12 * index
            tag, kind, length = struct.unpack_from(order + "HHI", data, at)
            if tag not in TAGS or kind in _TEXT:
                yield f"TIFF tag {tag} ({TAGS.get(tag, 'not on the list')}, type {kind})"
            size = _SIZES[kind] * length
            place = at + 8 if size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
            used.append((place, place + size))
            if tag in (273, 279):
                form = f"{order}{length}{'H' if kind == 3 else 'I'}"
                strips[tag] = struct.unpack_from(form, data, place)
        used += [(start, start + size) for start, size in zip(strips[273], strips[279], strict=True)]
        end = offset + 2 + 12 * count
        used.append((offset, end + 4))
        offset = struct.unpack_from(order + "I", data, end)[0]
    yield from _gaps(data, used)


def _gaps(data: bytes, used: list[tuple[int, int]]) -> Iterator[str]:
    """Yield the stretches between or after the used ones that hold more than zeros."""
    reached = 0
    for start, end in [*sorted(used), (len(data), len(data))]:
        if start > reached and any(data[reached:start]):
            yield f"{start - reached} bytes at {reached} that no TIFF tag leads to"
        reached = max(reached, end)
