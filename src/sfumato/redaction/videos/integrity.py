"""Is a video file all there? Its structure is walked before a decoder gets to gloss over what is missing.

FFmpeg reads a cut or damaged file as far as it can and reports success. Containers say how long their parts
are, so a part that ends beyond the file, or a chain of parts that breaks, shows what a decoder hides.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from sfumato.core.errors import UnreadableMedia

EBML, SEGMENT, CLUSTER, GROUP, SIMPLE, BLOCK = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0, 0xA3, 0xA1
CHECKSUM = 0xBF
#: Elements that hold a whole number: no longer than eight bytes.
NUMBERS = frozenset({0xE7, 0xA7, 0xAB, 0x9B, 0xFB, 0xFA, 0x75A2})
#: Elements of a Matroska file on the levels that are walked: top, segment, cluster, group (RFC 9559).
ELEMENTS = NUMBERS | {
    EBML, SEGMENT, CLUSTER, GROUP, SIMPLE, BLOCK, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B,
    0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF, 0x5854, 0xAF, 0x75A1, 0xA2, 0xA4, 0x8E, 0xC8, 0xFD,
}  # fmt: skip


def check_whole(path: Path) -> Counter[int]:
    """Refuse a file that is empty, or that ends or breaks off before its own structure says so.

    Formats whose structure gives no lengths (MPEG streams, AVI) pass here; the reader counts their frames.

    Returns:
        Frames by track number, for a Matroska or WebM file; empty for others.

    Raises:
        UnreadableMedia: empty, not readable, cut short or damaged.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise UnreadableMedia(f"{path.name} is empty (0 bytes): copy it again from where it came")
            head = file.read(12)
            if head[:4] == EBML.to_bytes(4, "big"):
                return _walk_matroska(path, file, size)
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
                _walk_boxes(path, file, size)
            return Counter()
    except OSError as error:
        raise UnreadableMedia(
            f"{path.name} cannot be read: {error.strerror or error}. Check that it exists and may be read"
        ) from error


def _cut(path: Path, missing: int) -> UnreadableMedia:
    return UnreadableMedia(
        f"{path.name} is cut short: {missing} bytes that its structure declares are missing. "
        f"Copy it again from where it came"
    )


def _walk_boxes(path: Path, file: BinaryIO, size: int) -> None:
    """Walk the top boxes of an ISO base media file (MP4, MOV)."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if not kind.isalnum() or length == 0:  # padding at the end, or a box that lasts to the end
            return
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            raise UnreadableMedia(f"{path.name} is damaged at byte {at}: a box of {length} bytes cannot be")
        at += length
    if at > size:
        raise _cut(path, at - size)


def _walk_matroska(path: Path, file: BinaryIO, size: int) -> Counter[int]:
    """Walk a Matroska or WebM file down to the blocks of its clusters; return frames by track number."""
    at, end, start, fence = 0, size, 0, 0
    counts: Counter[int] = Counter()
    while at < end:
        file.seek(at)
        head = file.read(32)
        element, used = _number(head, keep_marker=True)
        length, more = _number(head[used:], keep_marker=False)
        if not used or not more or element not in ELEMENTS or (element in NUMBERS and length > 8):
            if at + 12 > size:
                raise _cut(path, 1)
            raise UnreadableMedia(
                f"{path.name} is damaged at byte {at}: its structure breaks off there. "
                f"Copy it again from where it came"
            )
        body = at + used + more
        unknown = length == (1 << 7 * more) - 1  # a live recording: the element lasts until the next one
        if element == SEGMENT:
            end = size if unknown else body + length
            if end > size:
                raise _cut(path, end - size)
        if element == CLUSTER:
            start, fence = body, 0 if unknown else body + length
        if element == CHECKSUM and length == 4 and at == start and fence <= size:
            _check_sum(path, file, head[used + more :][:4], body + 4, fence)
        if element in (SIMPLE, BLOCK):
            track, frames = _block(head[used + more :])
            counts[track] += frames
        at = body if element in (SEGMENT, CLUSTER, GROUP) or unknown else body + length
    if at > end:
        raise _cut(path, at - end)
    return counts


def _check_sum(path: Path, file: BinaryIO, said: bytes, at: int, end: int) -> None:
    """Compare a cluster of a Matroska file with its checksum (RFC 8794, 11.3.1: CRC-32, little-endian)."""
    file.seek(at)
    found, left = 0, end - at
    while left > 0 and (piece := file.read(min(left, 1 << 20))):
        found, left = zlib.crc32(piece, found), left - len(piece)
    if found.to_bytes(4, "little") != said:
        raise UnreadableMedia(
            f"{path.name} is damaged between bytes {at} and {end}: its checksum is another. "
            f"Copy it again from where it came"
        )


def _block(data: bytes) -> tuple[int, int]:
    """Return the track number of a block and how many frames it holds (more than one when laced)."""
    track, used = _number(data, keep_marker=False)
    flags = data[used + 2 : used + 4]
    return track, flags[1] + 1 if len(flags) == 2 and flags[0] & 0x06 else 1


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Read an EBML variable-length number: its value and how many bytes it took (0: not a number)."""
    if not data or not data[0]:
        return 0, 0
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return 0, 0
    value = int.from_bytes(data[:length], "big")
    return (value if keep_marker else value & ~(1 << 7 * length)), length
