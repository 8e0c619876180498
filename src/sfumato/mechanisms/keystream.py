"""Many unpredictable bytes from a few: AES-128 in counter mode under a key that is used once.

The kernel's generator takes some 20 ns for eight bytes, this one a nanosecond. Every call takes a fresh key
from the release's source and starts its counter at nought, so there is no state that a fork, a thread, a
checkpoint or a resumed run could use twice: a key lives inside one call.
"""

from __future__ import annotations

from collections.abc import Callable

from sfumato.core.entropy import Entropy

#: One key gives at most this much, far below where counter mode could be told from random bytes.
MOST = 1 << 34
#: Below this, the source itself is quicker than a cipher that has to be set up.
FEW = 256

Fill = Callable[[memoryview], None]


def stream(source: Entropy) -> Fill:
    """Return what fills buffers with fresh bytes, each byte once, under a key of its own.

    Where `cryptography` is not installed, the bytes are the source's own: the same guarantee, slower.

    >>> from sfumato.core.entropy import SeededEntropy
    >>> buffer = bytearray(4)
    >>> stream(SeededEntropy(1))(memoryview(buffer))
    >>> any(buffer)
    True

    Guarantee:
        Predicting it is as hard as breaking AES-128 or the source.
    """
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        return _plain(source)
    encryptor = Cipher(algorithms.AES(source.bytes(16)), modes.CTR(bytes(16))).encryptor()
    given, zeros = 0, b""

    def fill(buffer: memoryview) -> None:
        nonlocal given, zeros, encryptor
        flat = buffer.cast("B")
        if given + len(flat) > MOST:
            encryptor = Cipher(algorithms.AES(source.bytes(16)), modes.CTR(bytes(16))).encryptor()
            given = 0
        if len(zeros) != len(flat):
            zeros = bytes(len(flat))
        encryptor.update_into(zeros, flat)
        given += len(flat)

    return fill


def has_cipher() -> bool:
    """Whether `stream` has a cipher, and its bytes are its own; else they are the source's, taken one by
    one."""
    try:
        import cryptography.hazmat.primitives.ciphers  # noqa: F401
    except ImportError:
        return False
    return True


def _plain(source: Entropy) -> Fill:
    def fill(buffer: memoryview) -> None:
        flat = buffer.cast("B")
        flat[:] = source.bytes(len(flat))

    return fill


def fresh(source: Entropy, count: int) -> bytes:
    """Return `count` fresh bytes."""
    if count < FEW:
        return source.bytes(count)
    buffer = bytearray(count)
    stream(source)(memoryview(buffer))
    return bytes(buffer)
