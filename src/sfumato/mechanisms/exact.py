"""Two laws on whole numbers, and their distribution functions between whole-number bounds, to any precision.

Everything is integer arithmetic: a real number is held between two integers over a power of two, and each
step rounds the lower one down and the upper one up. So what is decided from the bounds is decided rightly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from sfumato.core.errors import InvalidRequest

Kind = Literal["laplace", "gaussian", "rounded"]

#: The largest scale of Laplace noise, and deviation of Gaussian noise, in whole numbers.
WIDEST = 1 << 40
#: Scales have at most this many bits in numerator and denominator: arithmetic on them stays quick.
SCALE_BITS = 4096


@dataclass(frozen=True, slots=True)
class Law:
    """A law on whole numbers, symmetric about nought: P(k) ~ exp(-energy(k)), if it is not `rounded`.

    >>> Law("laplace", Fraction(4)).energy(8), Law("gaussian", Fraction(4)).energy(8)
    (Fraction(2, 1), Fraction(8, 1))

    Args:
        kind: laplace, energy |k| / scale; gaussian, energy k^2 / (2 variance); or rounded, the law of the
            continuous Laplace rounded to the nearest whole number: that of laplace but at nought.
        parameter: the scale, or the variance: that of the formula, which for narrow laws is not quite the
            square of the deviation.

    Raises:
        InvalidRequest: a parameter that is not above 0, too large, or written with too many digits.
    """

    kind: Kind
    parameter: Fraction

    def __post_init__(self) -> None:
        word = "variance" if self.kind == "gaussian" else "scale"
        most = {"laplace": WIDEST, "gaussian": WIDEST**2, "rounded": WIDEST // 2}[self.kind]
        value = self.parameter
        if not isinstance(value, Fraction) or not 0 < value <= most:
            raise InvalidRequest(
                f"the {word} of {_called(self.kind)} noise must be a fraction above 0 and at most "
                f"{most}, got {value!r}"
            )
        if max(value.numerator, value.denominator).bit_length() > SCALE_BITS:
            raise InvalidRequest(f"the {word} of noise has more than {SCALE_BITS} bits: round it up")

    @property
    def width(self) -> float:
        """The scale, or the root of the variance: how far noise reaches, roughly."""
        return math.sqrt(self.parameter) if self.kind == "gaussian" else float(self.parameter)

    def energy(self, k: int) -> Fraction:
        """Return minus the logarithm of P(k) / P(0)."""
        return k * k / (2 * self.parameter) if self.kind == "gaussian" else abs(k) / self.parameter

    def coarser(self, step: int) -> Law:
        """Return the law whose energy at h is that of this one at h * step."""
        return Law(self.kind, self.parameter / (step * step if self.kind == "gaussian" else step))


def _called(kind: Kind) -> str:
    return "rounded Laplace" if kind == "rounded" else kind.capitalize()


def exp_bounds(x: Fraction, bits: int) -> tuple[int, int]:
    """Return whole numbers around 2^bits * exp(-x), at most a few apart; x is not below 0.

    >>> exp_bounds(Fraction(1), 20), round(2**20 * math.exp(-1), 1)
    ((385749, 385750), 385749.6)
    """
    if not x:
        return 1 << bits, 1 << bits
    if x > bits:  # exp(-x) < 2^-x
        return 0, 1
    # exp(-x) = exp(-y) ^ (2^halvings) with y below 2^-8, and exp(-y) by its series.
    halvings = max(0, math.ceil(x).bit_length()) + 8
    work = bits + 2 * halvings + 32
    y = (x.numerator << work) // (x.denominator << halvings)
    term = total = 1 << work
    n = 0
    while term:
        n += 1
        term = (term * y >> work) // n
        total += -term if n % 2 else term
    slack = 4 * n + 4  # each term is off by below 3, what is left out and the rounding of y by below 2
    low, high = total - slack, total + slack
    for _ in range(halvings):
        low, high = low * low >> work, (high * high >> work) + 1
    shift = work - bits
    return low >> shift, (high >> shift) + 1


def cumulative(law: Law, bits: int, *, halved: bool, guard: int = 64) -> list[tuple[int, int]]:
    """Return whole numbers around 2^bits * P(K <= k), for k = 0, 1, ... until P(K > k) is below 2^-bits.

    They are apart by 1, unless such a product lies so close to a whole number that `guard` more bits of
    work do not tell its side.

    Args:
        halved: K is the magnitude of a draw. Otherwise every K >= 0 weighs exp(-energy(K)), nought as well: a
            magnitude with a sign, where nought comes twice.
    """
    work, finest = bits + guard, bits + guard // 2
    sums: list[tuple[int, int]] = []
    low = high = rest = 0
    for k, (w_low, w_high) in enumerate(_weights(law, work)):
        times = 2 if halved and k else 1
        low, high = low + times * w_low, high + times * w_high
        sums.append((low, high))
        if w_high.bit_length() + finest <= low.bit_length():
            # Energies are convex: what follows is at most a geometric series, of sum
            # w / (exp(drop) - 1) <= w / drop.
            drop = law.energy(k + 1) - law.energy(k)
            rest = 2 * w_high * drop.denominator // drop.numerator + 1
            if rest << finest < low:
                break
    return [((a << bits) // (high + rest), (b << bits) // low + 1) for a, b in sums]


def _weights(law: Law, bits: int) -> Iterator[tuple[int, int]]:
    """Yield whole numbers around 2^bits * exp(-energy(k)), for k = 0, 1, ..."""
    weight = 1 << bits, 1 << bits
    ratio = exp_bounds(law.energy(1), bits)
    growth = _product(ratio, ratio, bits)
    while True:
        yield weight
        weight = _product(weight, ratio, bits)
        if law.kind == "gaussian":  # exp(-(k+1)^2 y) = exp(-k^2 y) exp(-(2k+1) y)
            ratio = _product(ratio, growth, bits)


def _product(a: tuple[int, int], b: tuple[int, int], bits: int) -> tuple[int, int]:
    return a[0] * b[0] >> bits, (a[1] * b[1] >> bits) + 1
