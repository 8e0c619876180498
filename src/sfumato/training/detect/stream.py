"""Numbers that look random and follow from a key: each picture, step and view has a stream of its own.

They choose augmentations and hide nothing; noise never comes from here. The key comes from the permit.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


class Stream:
    """Uniform numbers, by hashing a key and what they are for.

    >>> Stream(b"key", "picture", 7).uniform(0, 1, 2).shape
    (2,)
    >>> bool(Stream(b"key", "a").uniform(0, 1, 1) == Stream(b"key", "a").uniform(0, 1, 1))
    True

    Args:
        key: secret or not; up to 64 bytes count.
        what: what the numbers are for; each other thing has other numbers.
    """

    def __init__(self, key: bytes, *what: str | int) -> None:
        spelled = b"".join(b"%d:%s" % (len(part), part) for part in (str(one).encode() for one in what))
        self._key = hashlib.blake2b(spelled, key=key[:64]).digest()
        self._blocks = 0

    def uniform(self, low: float, high: float, count: int) -> NDArray[np.float64]:
        """Return numbers in low..high: (count,)."""
        words: list[NDArray[np.uint64]] = []
        for _ in range(-(-count // 8)):
            block = hashlib.blake2b(self._blocks.to_bytes(8, "big"), key=self._key).digest()
            words.append(np.frombuffer(block, "<u8"))
            self._blocks += 1
        unit = np.concatenate([*words, np.zeros(0, np.uint64)])[:count] / 2.0**64
        return low + (high - low) * unit

    def order(self, count: int) -> list[int]:
        """Return 0..count-1 in a random order."""
        return [int(index) for index in np.argsort(self.uniform(0, 1, count), kind="stable")]
