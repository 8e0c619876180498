"""Discrete Laplace and Gaussian noise on whole numbers, of exactly the law asked for, behind a permit.

Few values get their noise from OpenDP's samplers, where it is installed, many from tables (`tables.py`).
Both draw from the operating system; tables take every byte from the permit's source, OpenDP from the system
itself. The argument is in docs/guarantees/noise.md.
"""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.core.entropy import Entropy
from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.core.gate import Permit
from sfumato.core.numbers import float_up
from sfumato.mechanisms.exact import Law
from sfumato.mechanisms.tables import sampler

#: Values are below this in magnitude; whoever bounds them knows it beforehand.
WIDEST_VALUE = 1 << 62
#: Up to this many values, OpenDP's samplers make the noise.
FEW = 4096

Source = Literal["auto", "own", "opendp"]


class Noise:
    """Discrete noise for one release.

    >>> from sfumato.core.gate import Gate, Plan
    >>> plan = Plan(action="query", mechanism="m", guarantee="heuristic", statement="an example")
    >>> noise = Noise(Gate().open(plan))
    >>> noise.laplace(np.array([[10, 20], [30, 40]]), Fraction(2)).shape, noise.drawn
    ((2, 2), 4)

    Guarantee:
        `laplace(values, scale)` and `rounded_laplace` are (D1 / scale)-differentially private, and
        `gaussian(values, variance)` is (D2^2 / (2 variance))-zCDP, for whole-number vectors that differ by at
        most D1 in the sum of absolute differences, and D2 in Euclidean distance. The noise takes no longer
        for some values than for others.

    Args:
        permit: of the release, already charged; its charge is final from the first draw on.
        source: "own": tables only; "opendp": its samplers only; "auto": OpenDP for up to `FEW` values, if it
            is installed and the permit's source is the system's.

    Attributes:
        drawn: how many numbers have been given noise.

    Source:
        Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), Theorem 14 for the Gaussian; Ghosh, Roughgarden
        and Sundararajan 2012 for the Laplace (as the two-sided geometric).
    """

    def __init__(self, permit: Permit, *, source: Source = "auto") -> None:
        if source not in ("auto", "own", "opendp"):
            raise InvalidRequest(f"noise comes from 'auto', 'own' or 'opendp', got {source!r}")
        self._permit, self._source, self.drawn = permit, source, 0
        self._lock = threading.Lock()

    def laplace(self, values: NDArray[Any], scale: Fraction) -> NDArray[np.int64]:
        """Return `values` with fresh noise on each: P(k) ~ exp(-|k| / scale).

        Args:
            values: whole numbers of any shape, below 2^62 in magnitude.
            scale: above 0, at most 2^40.

        Raises:
            InvalidRequest: values or scale out of range, a permit that has ended, or a seeded source that
                was to go with OpenDP.
            MissingExtra: OpenDP was asked for and is not installed.
        """
        return self._add(values, Law("laplace", scale))

    def rounded_laplace(self, values: NDArray[Any], scale: Fraction) -> NDArray[np.int64]:
        """Return `values` with fresh noise on each: continuous Laplace noise of this scale, rounded.

        It is `laplace` with a little less of nought, and its Rényi loss is that of the event
        `Laplace(scale / D)`, where `laplace` has that of `PureDP(D / scale)`: the same epsilon, and a little
        less beside others. Always from tables.

        Args:
            values: whole numbers of any shape, below 2^62 in magnitude.
            scale: above 0, at most 2^39.

        Raises:
            InvalidRequest: as `laplace`; or OpenDP was asked for.
        """
        return self._add(values, Law("rounded", scale))

    def gaussian(self, values: NDArray[Any], variance: Fraction) -> NDArray[np.int64]:
        """Return `values` with fresh noise on each: P(k) ~ exp(-k^2 / (2 variance)).

        Args:
            values: whole numbers of any shape, below 2^62 in magnitude.
            variance: above 0, at most 2^80.

        Raises:
            InvalidRequest, MissingExtra: as `laplace`.
        """
        return self._add(values, Law("gaussian", variance))

    def _add(self, values: NDArray[Any], law: Law) -> NDArray[np.int64]:
        whole = _checked(values)
        entropy = self._permit.entropy  # an ended permit refuses, whatever the count
        with self._lock:
            self.drawn += whole.size
        if not whole.size:
            return whole.copy()
        if self._by_opendp(law, whole.size, entropy):
            noise = _opendp(law, whole.size)
        else:
            noise = sampler(law).draw(whole.size, entropy)
        return whole + noise.reshape(whole.shape)

    def _by_opendp(self, law: Law, count: int, entropy: Entropy) -> bool:
        if self._source == "opendp" and not entropy.private:
            raise InvalidRequest(
                "this gate has a seeded source of noise, for tests, and OpenDP's sampler takes no seed: use "
                "source='own', or Project.gate() as it is"
            )
        if law.kind == "rounded":
            if self._source == "opendp":
                raise InvalidRequest("OpenDP has no rounded Laplace noise on whole numbers: use source='own'")
            return False
        if self._source == "auto":
            return entropy.private and count <= FEW and _has_opendp()
        return self._source == "opendp"

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has no permit: what arrives there draws nothing.
        return (_none, ())


def _none() -> None:
    return None


def _checked(values: NDArray[Any]) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or (array.dtype.kind == "u" and array.dtype.itemsize == 8):
        raise InvalidRequest(f"discrete noise goes on whole numbers (int64), got {array.dtype}")
    whole = array.astype(np.int64, copy=False)
    if whole.size and not (whole.max() < WIDEST_VALUE and whole.min() > -WIDEST_VALUE):
        raise InvalidRequest(
            "a value has 2^62 or more in magnitude: bound the sums, by clamps and contribution bounds, so "
            "that none can"
        )
    return whole


def _has_opendp() -> bool:
    try:
        import opendp.prelude  # noqa: F401
    except ImportError:
        return False
    return True


def _opendp(law: Law, count: int) -> NDArray[np.int64]:
    """Return noise by OpenDP's samplers; their scale is a float, which is never below the one asked for."""
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise MissingExtra("OpenDP's samplers", ("opendp",), "dp") from error
    from sfumato.mechanisms.laplace import contrib

    with contrib():
        space = dp.vector_domain(dp.atom_domain(T="i64"))
        if law.kind == "laplace":
            make = dp.m.make_laplace(space, dp.l1_distance(T="i64"), scale=float_up(law.parameter))
        else:
            make = dp.m.make_gaussian(space, dp.l2_distance(T="f64"), scale=root_up(law.parameter))
    # On noughts: what is added later cannot make a draw take longer.
    return np.array(make([0] * count), np.int64)


def root_up(value: Fraction) -> float:
    """Return a float whose square is not below `value`.

    >>> root_up(Fraction(2)) ** 2 >= 2, root_up(Fraction(9))
    (True, 3.0)
    """
    root = math.sqrt(value)
    while Fraction(root) ** 2 < value:
        root = math.nextafter(root, math.inf)
    return root
