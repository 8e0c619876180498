"""The one source of randomness on the private path.

A capability never makes randomness of its own: it takes it from its permit, which takes it from here.
"""

from __future__ import annotations

import hashlib
import os
from typing import Protocol

from sfumato.core.errors import InvalidRequest


class Entropy(Protocol):
    """A source of independent uniform bytes."""

    private: bool
    """Whether an adversary cannot predict it; receipts of a source that is not are stamped."""

    def bytes(self, count: int) -> bytes:
        """Return `count` fresh bytes."""
        ...


class SystemEntropy:
    """The operating system's generator. It is safe after a fork and keeps no state here."""

    private = True

    def bytes(self, count: int) -> bytes:
        """Return `count` fresh bytes."""
        return os.urandom(count)


class SeededEntropy:
    """A reproducible stream, for tests only: receipts made with it say "not private".

    >>> SeededEntropy(7).bytes(4) == SeededEntropy(7).bytes(4)
    True

    A fixed seed gives the noise away: the same seed on two neighbouring tables reveals every bit.
    """

    private = False

    def __init__(self, seed: int) -> None:
        self._key = hashlib.sha256(f"sfumato test entropy {seed}".encode()).digest()
        self._blocks = 0

    def bytes(self, count: int) -> bytes:
        """Return the next `count` bytes of the stream."""
        parts = []
        while count > 0:
            block = hashlib.sha256(self._key + self._blocks.to_bytes(16, "big")).digest()
            self._blocks += 1
            parts.append(block[:count])
            count -= len(block)
        return b"".join(parts)


def below(source: Entropy, limit: int) -> int:
    """Return a uniform whole number in 0..limit-1, by rejection, so that none is favoured.

    Raises:
        InvalidRequest: `limit` is below 1.
    """
    if limit < 1:
        raise InvalidRequest(f"limit must be at least 1, got {limit}")
    bits = (limit - 1).bit_length()
    size = (bits + 7) // 8
    while True:
        value = int.from_bytes(source.bytes(size), "big") >> (8 * size - bits)
        if value < limit:
            return value


SYSTEM = SystemEntropy()
