"""Draws from a law on whole numbers, exactly and in bulk.

A magnitude is looked up by a uniform number U of which 63 bits are drawn at first: it is the number of those
c(k) = P(K <= k) that are not above U, and 63 bits tell which they are unless they are those of some c(k) as
well. Then, once in 2^63 for each k, more bits of U are drawn, and c(k) is worked out to as many (`exact.py`),
until they differ. So the law is the one that is asked for, tails included, and not an approximation of it.

Wide laws would need long tables. They are drawn as h * step + l, of which h has a table, l is uniform in
0..step-1, and a pair is taken with probability exp(energy(h * step) - energy(h * step + l)), which is close
to 1. That probability is compared with a uniform number in the same way: by its first bits, and by more where
they do not tell.

A continuous Laplace draw rounded to whole numbers has a magnitude of (K + 1) div 2, where K >= 0 weighs
exp(-K / (2 scale)): K is drawn, in one of the two ways.

How long it takes depends on the law, on how many draws there are, and on the random bits; the values that
noise is added to are not known here. Where few are drawn, it hardly depends on the random bits either.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sfumato.core.entropy import Entropy
from sfumato.mechanisms.exact import Law, cumulative, exp_bounds

#: Bits of a uniform number that are drawn at first; the 64th is a sign.
BITS = 63
#: Draws made at a time: what they need stays in the processor's cache.
CHUNK = 1 << 14
#: Up to this many draws at a time, each takes as many steps: with few, a clock could tell some of the noise.
FEW = 1 << 12
#: Up to this width a law has a table of its own; wider ones are cut into steps, that leave a table of WIDE.
NARROW = {"laplace": 600, "gaussian": 2400}
WIDE = {"laplace": 256, "gaussian": 512}
#: A draw beyond is given as this: its probability is below exp(-2^21) at the widest scale.
MOST = 1 << 61
#: More than float64 can be off when it works out a probability of acceptance.
MARGIN = 2.0**-44
#: Bits that are added to a uniform number at a time.
MORE = 64

Int64s = NDArray[np.int64]


class Sampler:
    """Draws of one law. Get one from `sampler`, which keeps the tables of the last few.

    >>> from sfumato.core.entropy import SeededEntropy
    >>> draws = sampler(Law("laplace", Fraction(10))).draw(1000, SeededEntropy(1))
    >>> bool(abs(draws.mean()) < 3), bool(8 < abs(draws).mean() < 12)
    (True, True)

    Args:
        law: that is drawn from.
        bits: of a uniform number that are drawn at first; with fewer, more draws take the way by which ties
            are broken, which is how it is tested.

    Attributes:
        law: of what is looked up.
        step: 1 where that has a table of its own.
    """

    def __init__(self, law: Law, *, bits: int = BITS) -> None:
        self._rounded = law.kind == "rounded"
        self.law = Law("laplace", 2 * law.parameter) if self._rounded else law
        self.step, kind = 1, self.law.kind
        if self.law.width > NARROW[kind]:
            self.step = 1 << math.ceil(math.log2(self.law.width / WIDE[kind]))
        self._low_bits = self.step.bit_length() - 1
        self._coarse = self.law.coarser(self.step)
        self._bits, self._mask = bits, (1 << bits) - 1
        self._halved = self.step == 1 and not self._rounded
        self._limits = _limits(self._coarse, bits, halved=self._halved)
        buckets = min(bits, 16, len(self._limits).bit_length() + 2)
        self._shift = bits - buckets
        starts = np.arange(1 << buckets, dtype=np.int64) << self._shift
        #: How many limits lie below a bucket's first number.
        self._first = np.searchsorted(self._limits, starts).astype(np.int32)

    def draw(self, count: int, entropy: Entropy) -> Int64s:
        """Return `count` fresh draws, as int64; all randomness is that of `entropy`."""
        out = np.empty(count, np.int64)
        done = 0
        while done < count:
            size = min(CHUNK, count - done)
            new = self._narrow(size, entropy) if self.step == 1 else self._wide(size, entropy)
            out[done : done + len(new)] = new
            done += len(new)
        return out

    def _narrow(self, count: int, entropy: Entropy) -> Int64s:
        words = _words(count, entropy)
        magnitudes = self._indices(words & self._mask, entropy)
        if self._rounded:
            magnitudes = magnitudes + 1 >> 1
        return np.negative(magnitudes, out=magnitudes, where=words < 0)

    def _wide(self, count: int, entropy: Entropy) -> Int64s:
        """Return those of `count` tries that are accepted."""
        words, others = _words(count, entropy), _words(count, entropy).view(np.uint64)
        coarse = self._indices(words & self._mask, entropy)
        fine = (others & np.uint64(self.step - 1)).astype(np.int64)
        magnitudes = (coarse << self._low_bits) + fine
        taken = self._accepted(coarse, fine, others >> np.uint64(self._low_bits), entropy)
        negative = words < 0
        if self._rounded:
            magnitudes = magnitudes + 1 >> 1
        else:
            taken &= (magnitudes != 0) | ~negative  # nought has one sign
        np.negative(magnitudes, out=magnitudes, where=negative)
        return magnitudes[taken]

    def _indices(self, uniform: Int64s, entropy: Entropy) -> Int64s:
        """Return how many c(k) are not above each uniform number, of which 63 bits are given."""
        limits = self._limits
        if uniform.size <= FEW:
            found = np.searchsorted(limits, uniform)
            at = limits[found]
        else:
            found = np.take(self._first, uniform >> self._shift).astype(np.int64)
            at = np.take(limits, found)
            late = np.flatnonzero(at < uniform)
            found[late] = np.searchsorted(limits, uniform[late])
            at[late] = limits[found[late]]
        for place in np.flatnonzero(at == uniform):
            index = self._refined(int(uniform[place]), entropy)
            found[place] = min(index, MOST >> self._low_bits)  # a sum then still has room in 64 bits
        return found

    def _refined(self, prefix: int, entropy: Entropy) -> int:
        """Return how many c(k) are not above a uniform number that begins with a prefix."""
        bits = self._bits
        while True:
            bits += MORE
            prefix = prefix << MORE | int.from_bytes(entropy.bytes(MORE // 8), "big")
            bounds = cumulative(self._coarse, bits, halved=self._halved)
            # Those that are not above it for certain, and those that may be not above it. Later ones than
            # were worked out are above 1 - 2^-bits.
            least = bisect_right(bounds, prefix, key=lambda bound: bound[1])
            most = bisect_right(bounds, prefix, key=lambda bound: bound[0])
            if least == most and prefix + 1 < 1 << bits:
                return least

    def _accepted(
        self, coarse: Int64s, fine: Int64s, prefix: NDArray[np.uint64], entropy: Entropy
    ) -> NDArray[np.bool_]:
        """Return for which pairs a uniform number, of which a prefix is given, is below the probability."""
        bits = 64 - self._low_bits
        rise = fine.astype(float)
        if self.law.kind == "laplace":
            rise *= float(1 / self.law.parameter)
        else:
            rise *= ((coarse << (self._low_bits + 1)) + fine) * float(1 / (2 * self.law.parameter))
        chance = np.exp(-rise)
        chance -= prefix * 2.0**-bits
        taken: NDArray[np.bool_] = chance > 0
        for place in np.flatnonzero(np.abs(chance) < MARGIN + 2.0**-bits):
            edge = int(coarse[place]) * self.step
            drop = self.law.energy(edge + int(fine[place])) - self.law.energy(edge)
            taken[place] = _below(int(prefix[place]), bits, drop, entropy)
        return taken


@functools.lru_cache(maxsize=32)
def sampler(law: Law) -> Sampler:
    """Return the sampler of a law; its table takes up to 0.1 s to make, once."""
    return Sampler(law)


def _words(count: int, entropy: Entropy) -> NDArray[np.int64]:
    """Return 64 random bits each."""
    return np.frombuffer(entropy.bytes(8 * count), np.dtype("<i8"))


def _limits(law: Law, bits: int, *, halved: bool) -> Int64s:
    """Return floor(2^bits c(k)), rising to 2^bits - 1, which stands for all that follow."""
    top = (1 << bits) - 1
    guard = 64
    while True:
        bounds = cumulative(law, bits, halved=halved, guard=guard)
        if all(high - low == 1 or low >= top for low, high in bounds):
            break
        guard *= 2
    return np.array([*(low for low, _ in bounds if low < top), top], np.int64)


def _below(prefix: int, bits: int, energy: Fraction, entropy: Entropy) -> bool:
    """Return whether a uniform number that begins with `bits` bits is below exp(-energy)."""
    while True:
        low, high = exp_bounds(energy, bits)
        if prefix + 1 <= low:
            return True
        if prefix >= high:
            return False
        prefix = prefix << MORE | int.from_bytes(entropy.bytes(MORE // 8), "big")
        bits += MORE
