from __future__ import annotations

import hashlib
import io
import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import IntegrityError
from sfumato.data.sealing import (
    HEADER_BYTES,
    read_header,
    seal,
    seal_bytes,
    sealed_size,
    unseal,
    unseal_bytes,
)

KEY = bytes(range(32))
SEGMENT = 64  # 2^6, the smallest: many segments in few bytes
TAG = 16


def sealed(data: bytes, *, context: bytes = b"here", key: bytes = KEY) -> bytes:
    return b"".join(seal(key, (data,), context, log_segment=6))


def opened(message: bytes, *, context: bytes = b"here", key: bytes = KEY) -> bytes:
    file = io.BytesIO(message)
    return b"".join(unseal(key, read_header(file), file, context))


def pieces(message: bytes) -> list[bytes]:
    body = message[HEADER_BYTES:]
    return [body[i : i + SEGMENT + TAG] for i in range(0, len(body), SEGMENT + TAG)]


@given(data=st.binary(max_size=5 * SEGMENT), cuts=st.lists(st.integers(0, 5 * SEGMENT), max_size=6))
def test_what_was_sealed_opens_however_it_was_cut(data: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    source = [data[a:b] for a, b in itertools.pairwise(ends)]
    message = b"".join(seal(KEY, source, b"here", log_segment=6))
    assert opened(message) == data
    assert len(message) == sealed_size(len(data), 6)


@pytest.mark.parametrize("size", [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT])
def test_the_format_is_what_its_page_says(size: int) -> None:
    """Opened again from the description alone, without the module's own reader."""
    data = hashlib.shake_256(b"data").digest(size)
    message = b"".join(seal(KEY, (data,), b"here", number=7, log_segment=6))
    assert message[:10] == b"SFMV" + bytes([1, 6]) + (7).to_bytes(4, "big")
    salt, commitment = message[10:42], message[42:74]
    info = b"sfumato sealed message\x00" + message[:10] + b"here"
    okm = HKDF(algorithm=SHA256(), length=71, salt=salt, info=info).derive(KEY)
    assert okm[39:] == commitment
    parts = pieces(message)
    plain = [
        AESGCM(okm[:32]).decrypt(
            okm[32:39] + index.to_bytes(4, "big") + bytes([index == len(parts) - 1]),
            part,
            message[:74] + b"here",
        )
        for index, part in enumerate(parts)
    ]
    assert b"".join(plain) == data


@settings(max_examples=200)
@given(data=st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    message = bytearray(sealed(b"x" * 150))
    where = data.draw(st.integers(0, len(message) - 1))
    message[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        opened(bytes(message))


def test_segments_cannot_be_moved_repeated_dropped_or_cut_off() -> None:
    message = sealed(b"a" * SEGMENT + b"b" * SEGMENT + b"c" * 10)
    header, (a, b, c) = message[:HEADER_BYTES], pieces(message)
    assert opened(header + a + b + c)
    for order in ((b, a, c), (a, a, c), (a, c), (a, b), (a, b, c, c), (a, b, c[:-1]), (c,), ()):
        with pytest.raises(IntegrityError):
            opened(header + b"".join(order))


def test_a_twin_without_position_and_end_would_not_notice() -> None:
    """The same order test against segments sealed each by itself: what the construction is for."""
    cipher = AESGCM(KEY)
    parts = [cipher.encrypt(bytes([i]) * 12, text, b"") for i, text in enumerate((b"one", b"two", b"end"))]
    nonces = [bytes([i]) * 12 for i in range(3)]
    moved = [cipher.decrypt(nonces[i], parts[i], b"") for i in (1, 0)]  # swapped, and the end cut off
    assert moved == [b"two", b"one"]


def test_another_key_or_place_does_not_open() -> None:
    message = sealed(b"secret")
    for changes in ({"key": bytes(32)}, {"context": b"there"}, {"context": b""}):
        with pytest.raises(IntegrityError, match="another key, or for another place"):
            opened(message, **changes)  # type: ignore[arg-type]


def test_one_ciphertext_opens_under_one_key_only() -> None:
    """Without the commitment, a body with a valid tag under a second key could be crafted."""
    message = bytearray(sealed(b"secret"))
    message[42:74] = bytes(32)
    with pytest.raises(IntegrityError, match="another key"):
        opened(bytes(message))


def test_equal_bytes_never_look_equal() -> None:
    messages = [seal_bytes(KEY, b"same", b"here") for _ in range(200)]
    assert len({message[10:42] for message in messages}) == 200  # salts, hence keys
    assert len({message[HEADER_BYTES:] for message in messages}) == 200


def test_a_seeded_source_would_repeat_the_key() -> None:
    """The check above sees a source that repeats itself."""
    messages = {seal_bytes(KEY, b"same", b"here", entropy=SeededEntropy(1)) for _ in range(5)}
    assert len(messages) == 1


def test_memory_stays_bounded() -> None:
    def source() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    tracemalloc.start()
    try:
        count = sum(len(piece) for piece in seal(KEY, source(), b"here"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == sealed_size(64 << 20)
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "not a sealed message"),
        (b"PK\x03\x04" + bytes(100), "not a sealed message"),
        (b"SFMV" + bytes([2, 20]) + bytes(100), "format 2"),
        (b"SFMV" + bytes([1, 60]) + bytes(100), "2\\^60"),
    ],
)
def test_what_is_no_sealed_message_says_so(message: bytes, says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        unseal_bytes(KEY, message, b"here")
