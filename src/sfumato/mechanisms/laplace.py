"""Discrete Laplace noise on whole numbers: OpenDP's exact sampler, behind a permit.

The sampler (Canonne, Kamath and Steinke 2020, arXiv 2004.00010) works on integers and an exact scale, so
no float gives the noise away. OpenDP takes its randomness from the operating system itself and has no seed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.core.gate import Permit
from sfumato.core.numbers import float_up

_LOCK = threading.Lock()


class Noise:
    """Discrete Laplace noise for one release.

    Guarantee:
        `add(values, scale)` returns integers that are (D / scale)-differentially private, for integer
        vectors that differ by at most D in the sum of absolute differences.

    Args:
        permit: of the release, already charged; its charge is final from the first draw on.

    Attributes:
        drawn: how many numbers have been given noise.
    """

    def __init__(self, permit: Permit) -> None:
        self._permit, self.drawn = permit, 0

    def add(self, values: NDArray[np.int64], scale: Fraction) -> NDArray[np.int64]:
        """Return `values` with fresh noise on each.

        Args:
            values: (n,) int64.
            scale: of the noise, in units of the values, above 0: P(k) falls as exp(-|k| / scale).

        Raises:
            InvalidRequest: a scale that is not above nought, or a gate with a seeded source: this noise
                has no seed.
            MissingExtra: OpenDP is not installed.
        """
        if scale <= 0:
            raise InvalidRequest(f"the scale of Laplace noise must be above 0, got {scale}")
        if not self._permit.entropy.private:
            raise InvalidRequest(
                "this gate has a seeded source of noise, for tests, and OpenDP's sampler takes no seed: use "
                "Project.gate() as it is"
            )
        with _LOCK:
            self.drawn += len(values)
        if not len(values):
            return values.copy()
        noisy = _mechanism(float_up(scale))([int(value) for value in values])
        return np.array(noisy, np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has no permit: what arrives there draws nothing.
        return (_none, ())


def _none() -> None:
    return None


def _mechanism(scale: float) -> Any:
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise MissingExtra("Laplace noise", ("opendp",), "dp") from error
    with contrib():
        return dp.m.make_laplace(
            dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64"), scale=scale
        )


@contextmanager
def contrib() -> Iterator[None]:
    """Allow what OpenDP counts as not yet vetted, such as its Laplace, and leave its switch as it was."""
    from opendp.mod import GLOBAL_FEATURES, disable_features, enable_features

    with _LOCK:
        before = "contrib" in GLOBAL_FEATURES
        enable_features("contrib")
        try:
            yield
        finally:
            if not before:
                disable_features("contrib")
