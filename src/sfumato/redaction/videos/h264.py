"""H.264 as bytes: which source packets may be copied, and one header for copied and own pictures.

Pictures of the source and ours lie in one file, so both have their parameter sets in one header, under ids of
their own. Only slices of pictures are ever copied: user data, captions and filler stay behind, and a stream
with anything else in it, or with room for words in its parameter sets, is not copied at all. The syntax
follows ITU-T H.264 (08/2021), sections 7.3.1, 7.3.2.1, 7.3.2.2 and annex E; the header is "avcC" of
ISO/IEC 14496-15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SLICE, IDR, SEI, SPS, PPS, AUD, END_SEQUENCE, END_STREAM, FILLER = 1, 5, 6, 7, 8, 9, 10, 11, 12
PICTURES = frozenset({SLICE, IDR})
#: Units that no picture needs: they are left out of what is copied.
IDLE = frozenset({SEI, AUD, END_SEQUENCE, END_STREAM, FILLER})
#: Profiles whose parameter sets tell of chroma and depth.
HIGH = frozenset({100, 110, 122, 244, 44})
BASELINE, MAIN = 66, 77
EXTENDED_SAR = 255


class Foreign(Exception):
    """A stream has something in it that is not copied."""


@dataclass(frozen=True, slots=True)
class Header:
    """Parameter sets of one stream.

    Args:
        sps, pps: units, without start codes or lengths.
        ids: of all sets, of both kinds.
        length: bytes that tell the length of a unit in a packet.
    """

    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    ids: frozenset[int]
    length: int = 4

    def free_id(self) -> int:
        """Return an id that no set of this stream has.

        Raises:
            Foreign: all are taken.
        """
        for number in range(31, -1, -1):
            if number not in self.ids:
                return number
        raise Foreign("every id is in use")


def read_header(extradata: bytes | None) -> Header:
    """Return the parameter sets of an "avcC" header, each read to its last bit.

    Raises:
        Foreign: another kind of header, interlaced pictures, redundant pictures, or bytes beyond the sets.
    """
    data = extradata or b""
    if len(data) < 7 or data[0] != 1:
        raise Foreign("no avcC header")
    at, sets = 5, []
    for mask in (0x1F, 0xFF):
        count, at = data[at] & mask, at + 1
        units = []
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2], "big")
            units.append(data[at + 2 : at + 2 + size])
            at += 2 + size
            if not size or at > len(data):
                raise Foreign("a broken header")
        sets.append(tuple(units))
    spses, ppses = sets
    if not spses or not ppses:
        raise Foreign("no parameter sets")
    chroma = {}
    for unit in spses:
        number, form = _check_sps(unit)
        chroma[number] = form
    ids = set(chroma) | {_check_pps(unit, chroma) for unit in ppses}
    return Header(spses, ppses, frozenset(ids), (data[4] & 3) + 1)


def annexb_header(data: bytes | None) -> Header:
    """Return the parameter sets that an encoder of ours gives, between start codes."""
    units = list(_between_codes(data or b""))
    return Header(
        tuple(unit for unit in units if unit[0] & 31 == SPS),
        tuple(unit for unit in units if unit[0] & 31 == PPS),
        frozenset(),
    )


def write_header(headers: Iterable[Header]) -> bytes:
    """Return one "avcC" header that holds the sets of several streams."""
    parts = list(headers)
    spses = list(dict.fromkeys(unit for part in parts for unit in part.sps))
    ppses = list(dict.fromkeys(unit for part in parts for unit in part.pps))
    top = max(spses, key=lambda unit: (unit[1] in HIGH, unit[1], unit[3]))
    data = bytes([1, top[1], top[2], max(unit[3] for unit in spses), 0xFF, 0xE0 | len(spses)])
    data += b"".join(len(unit).to_bytes(2, "big") + unit for unit in spses)
    data += bytes([len(ppses)]) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in ppses)
    if top[1] in HIGH:
        form, luma, colour = _depths(top)
        data += bytes([0xFC | form, 0xF8 | luma, 0xF8 | colour, 0])
    return data


def own_picture(data: bytes) -> bytes:
    """Return the slices of a packet of our encoder, between start codes, as units with lengths."""
    return joined(unit for unit in _between_codes(data) if unit[0] & 31 in PICTURES)


def copied_picture(data: bytes, header: Header) -> bytes:
    """Return the slices of a source packet as units with lengths of four bytes.

    Raises:
        Foreign: it is not exactly one picture, or there is something in it that is not known.
    """
    return joined(picture_units(data, header))


def picture_units(data: bytes, header: Header) -> list[bytes]:
    """Return the slices of a source packet; see `copied_picture`."""
    units = []
    for unit in _by_length(data, header.length):
        kind = unit[0] & 31
        if kind in PICTURES:
            units.append(unit)
        elif kind not in IDLE and unit not in header.sps and unit not in header.pps:
            raise Foreign(f"a unit of kind {kind}")
    firsts = [len(unit) > 1 and unit[1] >= 0x80 for unit in units]  # first_mb_in_slice is nought
    if not firsts or not firsts[0] or sum(firsts) != 1 or len({unit[0] & 31 for unit in units}) != 1:
        raise Foreign("not one picture")
    return units


def only_pictures(data: bytes) -> bool:
    """Say whether a packet, with lengths of four bytes, holds slices of pictures and nothing else."""
    units = kinds(data, 4)
    return bool(units) and all(unit & 31 in (SLICE, IDR) for unit in units)


def kinds(data: bytes, length: int) -> list[int]:
    """Return the first byte of each unit of a packet with lengths; as far as it can be read."""
    try:
        return [unit[0] for unit in _by_length(data, length)]
    except Foreign:
        return []


def joined(units: Iterable[bytes]) -> bytes:
    """Return units with lengths of four bytes, as they lie in a packet."""
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def _by_length(data: bytes, size: int) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + size], "big")
        unit = data[at + size : at + size + length]
        if not length or len(unit) != length:
            raise Foreign("a broken packet")
        yield unit
        at += size + length


def _between_codes(data: bytes) -> Iterator[bytes]:
    at = data.find(b"\0\0\1")
    while at >= 0:
        end = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : end if end >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit
        at = end


class _Bits:
    """Reads a parameter set bit by bit."""

    def __init__(self, unit: bytes) -> None:
        payload = unit[1:].replace(b"\0\0\3", b"\0\0")
        self._bits = bin(int.from_bytes(b"\1" + payload, "big"))[3:]
        self._at = 0

    def u(self, count: int = 1) -> int:
        """Return `count` bits as a number."""
        bits = self._bits[self._at : self._at + count]
        if len(bits) < count:
            raise Foreign("a parameter set is too short")
        self._at += count
        return int(bits, 2)

    def ue(self) -> int:
        """Return a number in Exp-Golomb code."""
        zeros = 0
        while not self.u():
            zeros += 1
            if zeros > 32:
                raise Foreign("a broken parameter set")
        return (1 << zeros) - 1 + (self.u(zeros) if zeros else 0)

    def skip(self, *kinds: str) -> None:
        """Pass over fields: "e" a number in Exp-Golomb code, a figure so many bits."""
        for kind in kinds:
            if kind == "e":
                self.ue()
            else:
                self.u(int(kind))

    def more(self) -> bool:
        """Return whether there are bits before the closing one."""
        return self._at < self._bits.rindex("1") if "1" in self._bits else False

    def close(self) -> None:
        """Refuse whatever follows the closing bit, up to the end of its byte."""
        rest = self._bits[self._at :]
        if not rest.startswith("1") or "1" in rest[1:] or len(rest) > 8:
            raise Foreign("bytes beyond a parameter set")

    def lists(self, sizes: Iterable[int]) -> None:
        """Pass over scaling lists."""
        for size in sizes:
            if not self.u():
                continue
            last = following = 8
            for _ in range(size):
                if following:
                    code = self.ue()
                    following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
                last = following or last


def _depths(unit: bytes) -> tuple[int, int, int]:
    """Return chroma format and bits of luma and chroma beyond eight."""
    bits = _Bits(unit)
    bits.skip("24", "e")
    form = bits.ue()
    if form == 3:
        bits.u()
    return form, bits.ue(), bits.ue()


def _check_sps(unit: bytes) -> tuple[int, int]:
    """Read a sequence parameter set to its end; return its id and chroma format."""
    bits = _Bits(unit)
    profile = bits.u(8)
    if unit[0] & 31 != SPS or (profile not in HIGH and profile not in (BASELINE, MAIN)):
        raise Foreign(f"profile {profile}")
    bits.u(16)
    number, form = bits.ue(), 1
    if profile in HIGH:
        form = bits.ue()
        if form == 3 and bits.u():
            raise Foreign("separate colour planes")
        bits.skip("e", "e", "1")
        if bits.u():
            bits.lists([16] * 6 + [64] * (2 if form != 3 else 6))
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.skip("1", "e", "e")
        bits.skip(*["e"] * bits.ue())
    bits.skip("e", "1", "e", "e")
    if not bits.u():
        raise Foreign("interlaced pictures")
    bits.u()
    if bits.u():
        bits.skip(*"eeee")
    if bits.u():
        _skip_vui(bits)
    bits.close()
    return number, form


def _skip_vui(bits: _Bits) -> None:
    if bits.u() and bits.u(8) == EXTENDED_SAR:
        bits.u(32)
    if bits.u():
        bits.u()
    if bits.u():
        bits.u(4)
        if bits.u():
            bits.u(24)
    if bits.u():
        bits.skip("e", "e")
    if bits.u():
        bits.skip("32", "32", "1")
    rates = 0
    for _ in range(2):
        if bits.u():
            rates += 1
            count = bits.ue() + 1
            bits.skip("8", *["e", "e", "1"] * count, "20")
    if rates:
        bits.u()
    bits.u()
    if bits.u():
        bits.skip("1", *["e"] * 6)


def _check_pps(unit: bytes, chroma: dict[int, int]) -> int:
    """Read a picture parameter set to its end; return its id."""
    if unit[0] & 31 != PPS:
        raise Foreign("a broken header")
    bits = _Bits(unit)
    number, sps = bits.ue(), bits.ue()
    bits.u(2)
    if bits.ue() or sps not in chroma:
        raise Foreign("slice groups")
    bits.skip("e", "e", "3", "e", "e", "e", "2")
    if bits.u():
        raise Foreign("redundant pictures")
    if bits.more():
        eights = (2 if chroma[sps] != 3 else 6) * bits.u()
        if bits.u():
            bits.lists([16] * 6 + [64] * eights)
        bits.ue()
    bits.close()
    return number
