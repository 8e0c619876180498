"""A small DP-SGD mechanism over canaries, and broken twins of it: each breaks one promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FAULTS = ("", "half noise", "no clipping", "reused noise", "shuffled batches", "double participation")


@dataclass
class Mechanism:
    """One step after another: Poisson sample, clip to 1, sum, Gaussian noise of `sigma`.

    Canaries come with gradients three times as long as the bound, so that clipping matters.
    """

    sigma: float
    rate: float
    canaries: int
    seed: int
    fault: str = ""
    units: int = 2000
    length: float = 3.0
    _order: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    _noise: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        assert self.fault in FAULTS
        self.rng = np.random.default_rng(self.seed)

    def step(self, members: NDArray[np.intp]) -> NDArray[np.float64]:
        taken = members[self.rng.random(len(members)) < self.rate]
        sums = np.zeros(self.canaries)
        sums[taken] = self.length if self.fault == "no clipping" else min(1.0, self.length)
        if self.fault == "double participation":
            sums *= 2
        return sums + self._draw()

    def _draw(self) -> NDArray[np.float64]:
        if self.fault == "reused noise":
            if self._noise is None:
                self._noise = self.sigma * self.rng.standard_normal(self.canaries)
            return self._noise
        scale = 0.5 if self.fault == "half noise" else 1.0
        return scale * self.sigma * self.rng.standard_normal(self.canaries)

    def sample(self) -> NDArray[np.intp]:
        if self.fault == "shuffled batches":
            size = round(self.rate * self.units)
            if len(self._order) < size:
                self._order = self.rng.permutation(self.units)
            batch, self._order = self._order[:size], self._order[size:]
            return batch
        batch = np.flatnonzero(self.rng.random(self.units) < self.rate)
        return np.concatenate([batch, batch[:1]]) if self.fault == "double participation" else batch

    def contribution(self, gradients: NDArray[np.float64]) -> NDArray[np.float64]:
        """What one unit with these gradients, (k, d), adds to the sum."""
        clean = np.where(np.isfinite(gradients).all(axis=1, keepdims=True), gradients, 0.0)
        if self.fault == "no clipping":
            return clean.sum(axis=0)
        if self.fault == "double participation":
            return np.sum([_clipped(one) for one in clean], axis=0)
        return _clipped(clean.sum(axis=0))


def _clipped(gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = float(np.abs(gradient).max(initial=0.0))
    if largest == 0:
        return gradient
    scaled = gradient / largest  # squares of huge or tiny numbers would leave float64
    norm = float(np.linalg.norm(scaled))
    return gradient if norm * largest <= 1 else scaled / norm


def priced(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The noise multiplier whose run costs (epsilon, delta), by dp-accounting's own calibration."""
    import dp_accounting
    from dp_accounting import pld

    return float(
        dp_accounting.calibrate_dp_mechanism(
            lambda: pld.PLDAccountant(value_discretization_interval=1e-3),
            lambda sigma: dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma)), steps
            ),
            epsilon,
            delta,
            bracket_interval=dp_accounting.LowerEndpointAndGuess(0.3, 3.0),
            tol=1e-3,
        )
    )


Fresh = Callable[[int], Mechanism]
