"""Who is in a step: each privacy unit by its own coin (Poisson sampling), whatever the others do.

A unit is an image, or a person or patient with several. Its images stay together: in one step all of them are
there or none, and they are never spread over two micro-batches, since each is clipped as one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sfumato.core.entropy import Entropy, below
from sfumato.core.errors import InvalidRequest
from sfumato.mechanisms.keystream import fresh

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """The images of one step, unit after unit; it may be empty, and the step is then noise alone.

    Args:
        images: (n,) int64, indices into the dataset.
        units: (n,) int64, whose each is: 0, 1, 2 ... in this sample; neighbours of one unit stand together.
    """

    images: Indices
    units: Indices

    def __len__(self) -> int:
        return len(self.images)

    def parts(self, most: int) -> Iterator[Sample]:
        """Yield micro-batches of at most `most` images; a unit that has more is one of its own."""
        start = 0
        ends = np.flatnonzero(np.diff(self.units, append=-1)) + 1  # where each unit's images end
        while start < len(self.images):
            room = ends[(ends > start) & (ends <= start + most)]
            end = int(room[-1]) if len(room) else int(ends[ends > start][0])
            yield Sample(self.images[start:end], self.units[start:end] - self.units[start])
            start = end


class Units:
    """Which images belong to whom.

    >>> units = Units.of(["ann", "bob", "ann"])
    >>> len(units), units.images(0).tolist()
    (2, [0, 2])

    Args:
        order: (n,) int64, images grouped by unit.
        starts: (units + 1,) int64, where each unit's images begin in `order`.
    """

    def __init__(self, order: Indices, starts: Indices) -> None:
        self.order, self.starts = order, starts

    @classmethod
    def each(cls, count: int) -> Units:
        """Return units of one image each."""
        return cls(np.arange(count), np.arange(count + 1))

    @classmethod
    def of(cls, keys: Sequence[Hashable]) -> Units:
        """Group images by a key each.

        Raises:
            InvalidRequest: a key is missing (None, NaN or empty): nobody can say whose that image is.
        """
        known: dict[Hashable, int] = {}
        whose = np.empty(len(keys), np.int64)
        for index, key in enumerate(keys):
            if hasattr(key, "item"):
                key = key.item()  # a number out of an array or tensor
            if key is None or key == "" or key != key:
                raise InvalidRequest(
                    f"image {index} has no unit (got {key!r}): say whose it is, or leave it out of the data"
                )
            whose[index] = known.setdefault(key, len(known))
        order = np.argsort(whose, kind="stable")
        starts = np.searchsorted(whose[order], np.arange(len(known) + 1))
        return cls(order, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def images(self, unit: int) -> Indices:
        """Return a unit's images."""
        return self.order[self.starts[unit] : self.starts[unit + 1]]

    def sample(self, chosen: Indices, most: int, source: Callable[[], Entropy]) -> Sample:
        """Return the images of the chosen units, at most `most` of each, drawn anew where it has more."""
        counts = self.starts[chosen + 1] - self.starts[chosen]
        if (counts == 1).all():
            return Sample(self.order[self.starts[chosen]], np.arange(len(chosen)))
        parts = [_few(self.images(int(unit)), most, source) for unit in chosen]
        units = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return Sample(np.concatenate(parts) if parts else np.empty(0, np.int64), units)


def _few(images: Indices, most: int, source: Callable[[], Entropy]) -> Indices:
    if len(images) <= most:
        return images
    left, entropy = images.copy(), source()
    for index in range(most):  # the first steps of a shuffle
        other = index + below(entropy, len(left) - index)
        left[index], left[other] = left[other], left[index]
    return left[:most]


def poisson(count: int, rate: Fraction, source: Entropy) -> Indices:
    """Return which of `count` units are in: each with probability exactly `rate`, independently.

    >>> from sfumato.core.entropy import SeededEntropy
    >>> poisson(5, Fraction(1), SeededEntropy(1)).tolist()
    [0, 1, 2, 3, 4]

    Raises:
        InvalidRequest: a rate outside 0..1.
    """
    if not 0 <= rate <= 1:
        raise InvalidRequest(f"a rate is a probability, got {rate}")
    if rate == 1:
        return np.arange(count)
    limit, rest = divmod(rate.numerator << 64, rate.denominator)
    coins = np.frombuffer(fresh(source, 8 * count), np.uint64)
    chosen = coins < np.uint64(limit)
    if rest:
        # A coin that falls on the edge is in with what the rate has beyond 64 bits.
        for index in np.flatnonzero(coins == np.uint64(limit)):
            chosen[index] = below(source, rate.denominator) < rest
    return np.flatnonzero(chosen)
