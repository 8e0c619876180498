"""The keyed hash that chooses in which cells a unit counts: the same whole numbers on every engine.

All is multiplication and remainder of whole numbers below 2^62, so that no engine overflows, and none of its
own hash functions is asked. Keys come from the salt, which no asker knows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.core.errors import InvalidRequest

#: A Mersenne prime; hashes are below it.
PRIME = (1 << 31) - 1
BITS = 31
#: A text stands for the first 15 hexadecimal digits of its MD5: 60 bits.
DIGITS = 15


@dataclass(frozen=True, slots=True)
class Keys:
    """The constants of one salt: whole numbers in 1..2^30."""

    unit: tuple[int, ...]
    cell: tuple[int, ...]
    bin: tuple[int, ...]


def keys_of(salt: bytes) -> Keys:
    """Return the constants of a salt.

    >>> keys_of(bytes(16)) == keys_of(bytes(16)) != keys_of(bytes(15) + b"1")
    True

    Raises:
        InvalidRequest: the salt is shorter than 16 bytes.
    """
    if len(salt) < 16:
        raise InvalidRequest(f"a salt has 16 bytes, got {len(salt)}")
    stream = hashlib.shake_256(b"sfumato cells 1" + salt).digest(4 * 18)
    numbers = [1 + (int.from_bytes(stream[4 * i : 4 * i + 4], "big") >> 2) for i in range(18)]
    return Keys(tuple(numbers[:4]), tuple(numbers[4:11]), tuple(numbers[11:18]))


def of_unit(number: Any, keys: Keys) -> Any:
    """Return the hash of a unit by its number, any 64 bits: of Python ints and of Ibis columns alike."""
    a, b, c, d = keys.unit
    low, middle, high = number & PRIME, (number >> BITS) & PRIME, (number >> (2 * BITS)) & 3
    mixed = _rest(low * a + middle * b + high * c + d)
    return mixed ^ (mixed >> 15)


def of_cell(unit: Any, cell: Any, keys: tuple[int, ...]) -> Any:
    """Return the hash of a cell (or of a bin) for a unit's hash: below PRIME.

    Args:
        unit: from `of_unit`, or another hash. cell: 0..2^31 - 1.
    """
    a, b, c, d, e, f, g = keys
    mixed = _rest(unit * a + cell * b + c)
    mixed = mixed ^ (mixed >> 16)
    mixed = _rest(mixed * d + e)
    mixed = mixed ^ (mixed >> 14)
    return _rest(mixed * f + g)


def _rest(number: Any) -> Any:
    if not isinstance(number, np.ndarray):
        return number % PRIME
    whole = number.view(np.uint64) // np.uint64(PRIME)  # half the time of numpy's %
    whole *= np.uint64(PRIME)
    return number - whole.view(np.int64)
