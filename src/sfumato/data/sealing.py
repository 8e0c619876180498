"""Sealing bytes under a key: AES-256-GCM in segments, with a fresh key for every message.

A sealed message is a header and segments:

    "SFMV" | format 1 | log2 of the segment size | key number, 4 | salt, 32 | commitment, 32
    segment 0 | segment 1 | ... | last segment          each with its 16-byte tag

HKDF-SHA256 turns (key, salt, context) into a message key, a nonce prefix and a commitment. The salt has 256
random bits, so no two messages share a message key: the bound of 2^32 messages for random nonces under one
key never applies, and a long-lived key needs no counter that a restored backup would set back. Inside a
message the nonce is prefix (7) | segment number (4) | last flag (1), the STREAM construction of Hoang,
Reyhanitabar, Rogaway and Vizar (2015): segments cannot be reordered, repeated, dropped or cut off.

AES-GCM alone does not commit to its key: one ciphertext can be made to open under two. The commitment,
compared in constant time before anything is decrypted, closes that, and tells a wrong key or context from
damage.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import IntegrityError, InvalidRequest, MissingExtra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
#: 1 MiB: large enough that the tags and calls cost nothing, small enough for bounded memory.
LOG_SEGMENT = 20
MAX_SEGMENTS = 1 << 32

_MAGIC = b"SFMV"
_FORMAT = 1
_FIXED = struct.Struct(">4sBBI")
_SALT = 32
_COMMITMENT = 32
_PREFIX = 7
_TAG = 16
HEADER_BYTES = _FIXED.size + _SALT + _COMMITMENT


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a sealed message, as read; nothing of it is trusted before the commitment matches."""

    number: int
    log_segment: int
    raw: bytes

    @property
    def salt(self) -> bytes:
        """The random salt of this message."""
        return self.raw[_FIXED.size : _FIXED.size + _SALT]

    @property
    def commitment(self) -> bytes:
        """What binds the message to its key and context."""
        return self.raw[-_COMMITMENT:]


def seal(
    key: bytes,
    source: Iterable[bytes],
    context: bytes,
    *,
    number: int = 0,
    log_segment: int = LOG_SEGMENT,
    entropy: Entropy = SYSTEM,
) -> Iterator[bytes]:
    """Yield a sealed message piece by piece; holds about two segments in memory.

    Args:
        key: 32 bytes; may seal any number of messages.
        source: the bytes, in pieces of any size.
        context: what the message is bound to; needed again to open it, and not stored.
        number: which of the owner's keys this is; readable by anyone, bound to the message.
    """
    fixed = _FIXED.pack(_MAGIC, _FORMAT, log_segment, number)
    salt = entropy.bytes(_SALT)
    message_key, prefix, commitment = _derive(key, salt, fixed, context)
    header = fixed + salt + commitment
    yield header
    cipher, bound = _cipher(message_key), _bound(header, context)
    for index, (segment, last) in enumerate(_segments(source, 1 << log_segment)):
        yield cipher.encrypt(_nonce(prefix, index, last), segment, bound)


def unseal(key: bytes, header: Header, file: BinaryIO, context: bytes) -> Iterator[bytes]:
    """Yield the bytes of a sealed message, each piece verified; `file` stands right behind the header.

    A message that was cut off shows at its end only: pieces yielded before are genuine, but not all.

    Raises:
        IntegrityError: another key or context, or the bytes were changed.
    """
    from cryptography.exceptions import InvalidTag

    fixed = header.raw[: _FIXED.size]
    message_key, prefix, commitment = _derive(key, header.salt, fixed, context)
    if not hmac.compare_digest(commitment, header.commitment):
        raise IntegrityError("it was sealed under another key, or for another place")
    cipher, bound = _cipher(message_key), _bound(header.raw, context)
    size = (1 << header.log_segment) + _TAG
    piece, index = file.read(size), 0
    while True:
        following = file.read(size)
        try:
            yield cipher.decrypt(_nonce(prefix, index, not following), piece, bound)
        except InvalidTag as error:
            raise IntegrityError(f"segment {index} of it was changed, moved or cut off") from error
        if not following:
            return
        piece, index = following, index + 1


def read_header(file: BinaryIO) -> Header:
    """Read the header of a sealed message.

    Raises:
        IntegrityError: it is none, or of a later format.
    """
    raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES or raw[:4] != _MAGIC:
        raise IntegrityError("it is not a sealed message, or was cut off")
    _, version, log_segment, number = _FIXED.unpack(raw[: _FIXED.size])
    if version != _FORMAT or not 6 <= log_segment <= 30:
        raise IntegrityError(
            f"it is a sealed message of format {version} with 2^{log_segment}-byte segments; this version of "
            f"Sfumato reads format {_FORMAT} with 2^6 to 2^30: update Sfumato"
        )
    return Header(number, log_segment, raw)


def seal_bytes(key: bytes, data: bytes, context: bytes, *, entropy: Entropy = SYSTEM) -> bytes:
    """Return `data` sealed, for short messages such as keys."""
    return b"".join(seal(key, (data,), context, entropy=entropy))


def unseal_bytes(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return what `seal_bytes` sealed.

    Raises:
        IntegrityError: another key or context, or the bytes were changed.
    """
    import io

    file = io.BytesIO(sealed)
    return b"".join(unseal(key, read_header(file), file, context))


def sealed_size(size: int, log_segment: int = LOG_SEGMENT) -> int:
    """Return how many bytes a message of `size` bytes takes when sealed."""
    return HEADER_BYTES + size + _TAG * max(1, -(-size // (1 << log_segment)))


def _segments(source: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Cut pieces of any size into segments; the last is marked, and is empty only if there is nothing."""
    held = bytearray()
    count = 0
    for piece in source:
        view = memoryview(piece)
        while len(view):
            if len(held) == size:
                if count == MAX_SEGMENTS - 1:
                    raise InvalidRequest(f"an item has {MAX_SEGMENTS} segments at most: store it in parts")
                yield bytes(held), False
                count += 1
                held.clear()
            room = size - len(held)
            held += view[:room]
            view = view[room:]
    yield bytes(held), True


def _derive(key: bytes, salt: bytes, fixed: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise MissingExtra("encryption at rest", ("cryptography",), "vault") from error
    length = KEY_BYTES + _PREFIX + _COMMITMENT
    info = b"sfumato sealed message\x00" + fixed + context
    okm = HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)
    return okm[:KEY_BYTES], okm[KEY_BYTES : KEY_BYTES + _PREFIX], okm[KEY_BYTES + _PREFIX :]


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _bound(header: bytes, context: bytes) -> bytes:
    return header + context


def _nonce(prefix: bytes, index: int, last: bool) -> bytes:
    return prefix + index.to_bytes(4, "big") + bytes([last])
