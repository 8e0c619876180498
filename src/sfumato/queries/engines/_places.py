"""Where values stand in a list of a million, for ten million rows, in a few nanoseconds each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: So many slots there are for each value, and more: few share one.
SLOTS = 8
#: Bits of a value.
BITS = 63


class UnknownValueError(Exception):
    """A value is not in the list."""


class Places:
    """Places of whole numbers from 0 to 2^63 whose bits are as good as random.

    Values are looked up by some of their bits; those that share a slot by the next ones; the rest by halving.

    >>> Places(np.array([7 << 50, 3 << 50, 5])).of(np.array([3 << 50, 5, 5])).tolist()
    [1, 2, 2]
    """

    def __init__(self, values: NDArray[np.int64]) -> None:
        self._values = values
        self._levels: list[tuple[int, NDArray[np.int32]]] = []
        left, shift = np.arange(len(values), dtype=np.int32), 0
        while len(left):
            size = 1 << (SLOTS * len(left) - 1).bit_length()
            if shift + size.bit_length() > BITS:
                break
            slots = values[left] >> shift & (size - 1)
            alone = np.bincount(slots, minlength=size)[slots] == 1
            table = np.full(size, -1, np.int32)
            table[slots[alone]] = left[alone]
            self._levels.append((shift, table))
            left, shift = left[~alone], shift + size.bit_length() - 1
        self._rest = left[np.argsort(values[left])]

    def of(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of each value.

        Raises:
            UnknownValueError: one is not in the list.
        """
        if not len(self._values):
            if len(values):
                raise UnknownValueError
            return np.zeros(0, np.int64)
        places = self._found(values, 0)
        if not (self._values[places] == values).all():
            raise UnknownValueError
        return places

    def _found(self, values: NDArray[np.int64], level: int) -> NDArray[np.int64]:
        if level == len(self._levels):
            if not len(self._rest):
                return np.zeros(len(values), np.int64)
            found = np.searchsorted(self._values[self._rest], values)
            return self._rest[np.minimum(found, len(self._rest) - 1)].astype(np.int64)
        shift, table = self._levels[level]
        places: NDArray[np.int64] = table[values >> shift & (len(table) - 1)].astype(np.int64)
        missing = np.flatnonzero(places < 0)
        if len(missing):
            places[missing] = self._found(values[missing], level + 1)
        return places
