"""Gaussian noise in bulk, for training: through a permit, from a cipher, on a public grid.

What is released is `grid * (round(value / grid) + round(noise / grid))`, in whole numbers, exactly. As the
first part is a whole number, that is `round(rounded value + noise)`: a function of the Gaussian mechanism on
rounded values, and so as private as it. Which floats can come out no longer depends on the value, which is
what Mironov's attack reads ("On significance of the least significant bits", CCS 2012). Rounding moves a
value by half a cell, which `grid_for` keeps so small that the distance of two neighbours grows by less than a
4096th of the sensitivity; whoever clips leaves that much room.

What is not exact: the noise itself is Box and Muller's in float64, from 64 random bits for the radius and 32
for the angle. It reaches 9.4 standard deviations; 10^7 values over 10^4 steps would leave that reach with a
probability below 10^-8, which a training run's delta does not notice. Inside, cells hold many of the 2^96
points that a pair can fall on, and their probabilities are right to far below what a run's length could add
up; no proof is given for that. Where an exact law is wanted, use whole numbers and `laplace.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.core.gate import Permit
from sfumato.mechanisms.keystream import Fill, has_cipher, stream

#: Pairs made at a time: few enough for the processor's cache, and enough that threads seldom meet between two
#: calls of NumPy, where they wait for each other.
PAIRS = 1 << 15
#: Values under one key, and the work of one thread at a time.
SEGMENT = 1 << 19
#: Called with values, as many draws, and as much room to work in.
Put = Callable[[NDArray[Any], NDArray[np.float64], NDArray[np.float64]], None]
#: How much of the sensitivity rounding may take: a quarter of the 2^-10 that clipping leaves free.
ROUNDING = 2.0**-12
#: Whole numbers in float64 are exact up to this.
EXACT = 2.0**53
#: The angle's upper bits choose a direction out of a table, its lower bits turn it on.
TABLE_BITS = 12


class GaussianNoise:
    """Gaussian noise for one release.

    >>> from sfumato.core.gate import Gate, Plan
    >>> plan = Plan(action="train", mechanism="m", guarantee="heuristic", statement="an example")
    >>> len(GaussianNoise(Gate().open(plan)).standard(5))
    5

    Guarantee:
        `add(values, std, grid)` releases values of L2 sensitivity D with the loss of a Gaussian mechanism
        whose noise multiplier is std / (D + grid * sqrt(n)); see the module for what float64 leaves open.

    Args:
        permit: of the release, already charged; its charge is final from the first draw on.
        threads: that work on large draws, 1..64; the noise does not depend on how many.

    Attributes:
        drawn: how many numbers have been given noise.
    """

    def __init__(self, permit: Permit, *, threads: int = 1) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 64:
            raise InvalidRequest(f"threads must be a whole number of 1..64, got {threads!r}")
        self._permit, self._threads, self.drawn = permit, threads, 0
        has_cipher()  # loads it now, and not in the midst of the first step

    def standard(self, count: int) -> NDArray[np.float64]:
        """Return `count` fresh draws of mean 0 and deviation 1, as float64.

        They are meant to be scaled and rounded: alone, a float's lowest bits give a sum away (see `add`).

        Raises:
            InvalidRequest: the permit has ended, or a count below nought.
        """
        if count < 0:
            raise InvalidRequest(f"a count of draws is not below 0, got {count}")
        out = np.empty(count)
        self._fill([out], lambda target, draws, room: target.__setitem__(slice(None), draws))
        return out

    def add(self, values: NDArray[Any], std: float, grid: float) -> NDArray[np.float64]:
        """Return `values` with fresh noise on each, on the grid, as float64 (exact multiples of `grid`).

        Args:
            values: any shape, float.
            std: of the noise, in units of the values, above 0.
            grid: width of a cell, a power of two (`grid_for`).

        Raises:
            InvalidRequest: std or grid out of range, values that are not finite, or too large for the grid.
        """
        out = np.array(values, np.float64, order="C")
        self.add_to((out,), std, grid)
        return out

    def add_to(self, arrays: Sequence[NDArray[Any]], std: float, grid: float) -> None:
        """Put fresh noise on every value of some arrays, in place; as `add` does otherwise.

        Args:
            arrays: float32 or float64, C-contiguous; float32 rounds what is on the grid, after the noise.
        """
        _check(std, grid)
        flats = [array.reshape(-1) for array in arrays]
        for array, flat in zip(arrays, flats, strict=True):
            if array.dtype not in (np.float32, np.float64) or (
                flat.size and not np.shares_memory(flat, array)
            ):
                raise InvalidRequest(f"noise goes on contiguous float32 or float64, got {array.dtype}")
        most = _largest(flats, self._threads)
        if not most <= (EXACT - 1) * grid - 16 * std:
            raise InvalidRequest(
                f"a value of {most} is not finite or too large for a grid of {grid}: clip first, and "
                "take the grid of `grid_for`"
            )
        inverse = 1 / grid

        def put(target: NDArray[Any], draws: NDArray[np.float64], room: NDArray[np.float64]) -> None:
            np.rint(draws, out=draws)
            np.copyto(room, target)
            room *= inverse
            np.rint(room, out=room)
            room += draws
            room *= grid
            target[:] = room

        self._fill(flats, put, std / grid)

    def _fill(self, flats: Sequence[NDArray[Any]], put: Put, scale: float = 1.0) -> None:
        """Call `put` with pieces of the arrays and fresh draws for each, of a deviation of `scale`.

        Every segment has a key of its own.
        """
        entropy = self._permit.entropy  # an ended permit refuses, whatever the count
        # Keys are taken here, in order: threads decide who works when, and nothing else.
        work = [(piece, stream(entropy)) for piece in _segments(flats)]
        self.drawn += sum(flat.size for flat in flats)
        threads = min(self._threads, len(work)) if has_cipher() else 1
        if threads <= 1:
            for pieces, fill in work:
                _segment(pieces, fill, put, scale)
            return
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(_segment, pieces, fill, put, scale) for pieces, fill in work]:
                done.result()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has no permit: what arrives there draws nothing.
        return (_none, ())


def _segments(flats: Sequence[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Cut arrays, one after the other, into segments of one size."""
    segment: list[NDArray[Any]] = []
    room = SEGMENT
    for flat in flats:
        start = 0
        while start < flat.size:
            piece = flat[start : start + room]
            segment.append(piece)
            start, room = start + piece.size, room - piece.size
            if not room:
                yield segment
                segment, room = [], SEGMENT
    if segment:
        yield segment


def _segment(pieces: Sequence[NDArray[Any]], fill: Fill, put: Put, scale: float) -> None:
    count = sum(piece.size for piece in pieces)
    work = _Work(min(PAIRS, (count + 1) // 2), scale)
    left = np.empty(0)
    for piece in pieces:
        start = 0
        while start < piece.size:
            if not left.size:
                left = work.make(fill)
            size = min(left.size, piece.size - start)
            put(piece[start : start + size], left[:size], work.room[:size])
            start, left = start + size, left[size:]


class _Work:
    """Buffers, and the transform: two draws from 96 random bits.

    Attributes:
        room: as much as the draws take, for whoever uses them.
    """

    def __init__(self, pairs: int, scale: float = 1.0) -> None:
        self._factor = -2 * scale * scale
        self._radius, self._angle = np.empty(2 * pairs, np.uint32), np.empty(pairs, np.uint32)
        self._out, self.room = np.empty(2 * pairs), np.empty(2 * pairs)
        self._index = np.empty(pairs, np.intp)
        self._turned = np.empty(pairs, np.complex128)
        # What is done with before the draws are there can lie where they, or their users, are going to.
        self._a, self._b = self._out[:pairs], self._out[pairs:]
        self._r, self._c = self.room[:pairs], self.room[pairs:]

    def make(self, fill: Fill) -> NDArray[np.float64]:
        """Return two draws for each pair of fresh numbers."""
        fill(self._radius.data)
        fill(self._angle.data)
        r, a, b, c = self._r, self._a, self._b, self._c
        # By halves, and so to the same number: the processor guesses at the upper bit of a long one.
        np.copyto(r, self._radius[: r.size])
        r *= 2.0**-32
        np.copyto(a, self._radius[r.size :])
        r += a
        r *= 2.0**-32
        r += 2.0**-65  # never nought, and never above 1
        np.log(r, out=r)
        r *= self._factor
        np.sqrt(r, out=r)
        np.right_shift(self._angle, 32 - TABLE_BITS, out=self._index, casting="unsafe")
        self._angle &= np.uint32((1 << 32 - TABLE_BITS) - 1)
        # The rest of the angle, t below 2 pi / 4096: what the series leave out is below 10^-16.
        np.copyto(a, self._angle.view(np.int32))
        a *= 2 * math.pi * 2.0**-32
        np.multiply(a, a, out=b)
        a *= r
        np.multiply(b, 1 / 24, out=c)
        c -= 0.5
        c *= b
        c += 1
        np.multiply(c, r, out=self._turned.real)
        b *= -1 / 6
        b += 1
        np.multiply(a, b, out=self._turned.imag)
        # Turned by the angle's upper bits.
        both = self._out.view(np.complex128)
        np.take(_directions(), self._index, out=both, mode="clip")
        both *= self._turned
        return self._out


@functools.cache
def _directions() -> NDArray[np.complex128]:
    turns = np.arange(1 << TABLE_BITS) * (2 * math.pi / (1 << TABLE_BITS))
    found: NDArray[np.complex128] = np.cos(turns) + 1j * np.sin(turns)
    return found


def grid_for(sensitivity: float, count: int) -> float:
    """Return the width of the public grid for `count` values of an L2 sensitivity: a power of two.

    Rounding on it changes the L2 distance of two neighbours by at most sensitivity / 4096. It depends on
    public numbers alone.

    >>> grid_for(1.0, 1_000_000) * 1_000_000**0.5 <= 2**-12
    True

    Raises:
        InvalidRequest: a sensitivity that is not above 0 and finite, or a count below 1.
    """
    if not (math.isfinite(sensitivity) and sensitivity > 0) or count < 1:
        raise InvalidRequest(f"a grid needs a sensitivity above 0 and a count, got {sensitivity}, {count}")
    return 2.0 ** math.floor(math.log2(sensitivity * ROUNDING / math.sqrt(count)))


def _largest(flats: Sequence[NDArray[Any]], threads: int) -> float:
    """Return the largest magnitude; NaN where there is one."""
    pieces = [flat[start : start + SEGMENT] for flat in flats for start in range(0, flat.size, SEGMENT)]
    if threads > 1 and sum(piece.size for piece in pieces) > SEGMENT:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(_magnitude, pieces))
    else:
        found = [_magnitude(piece) for piece in pieces]
    return float(np.max(found, initial=0.0))


def _magnitude(piece: NDArray[Any]) -> float:
    high, low = float(piece.max()), float(piece.min())
    return high if math.isnan(high) else max(high, -low)


def _check(std: float, grid: float) -> None:
    if not (math.isfinite(std) and std > 0):
        raise InvalidRequest(f"the deviation of Gaussian noise must be above 0 and finite, got {std!r}")
    if not (2.0**-1000 < grid < 2.0**1000 and math.frexp(grid)[0] == 0.5):
        raise InvalidRequest(f"a grid is a power of two, such as that of grid_for, got {grid!r}")
    if std < grid:
        raise InvalidRequest(f"noise of deviation {std} is lost on a grid of {grid}: it must be far finer")


def _none() -> None:
    return None
