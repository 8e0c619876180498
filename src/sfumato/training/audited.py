"""This room's own sampling, clipping and noise, over canaries: what an audit calls.

An audit asks for three callables: a step over canaries, what one unit adds, and who is in a batch. Here they
are made of the very functions that a run uses; nobody's data is touched, and nothing is charged.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.gate import Gate, Plan
from sfumato.mechanisms.gaussian import GaussianNoise, grid_for
from sfumato.training.engine import Clipping, Engine
from sfumato.training.sampling import poisson

#: A canary's gradient is this many clip bounds long, so that clipping has to do its part.
LENGTH = 3.0


class Rehearsal:
    """Steps of a run over canaries alone.

    >>> rehearsal = Rehearsal(noise_multiplier=Fraction(1), rate=Fraction(1, 10), canaries=40)
    >>> rehearsal.step(np.arange(20)).shape
    (40,)

    Args:
        noise_multiplier: deviation of the noise over the clip bound.
        rate: the chance of a unit to be in a step.
        canaries: how many; each is a direction of its own in a gradient of so many numbers.
        clipping: as in the run.
        units: how many units `sample` draws from.
        entropy: of sampling and noise.
    """

    def __init__(
        self,
        *,
        noise_multiplier: Fraction,
        rate: Fraction,
        canaries: int,
        clipping: Clipping | None = None,
        units: int = 2000,
        entropy: Entropy = SYSTEM,
    ) -> None:
        self.canaries, self.rate, self.units = canaries, rate, units
        self._clipping, self._entropy = clipping or Clipping(), entropy
        self._bound = self._clipping.sensitivity
        self._deviation = float(noise_multiplier) * self._bound
        self._grid = grid_for(self._bound, canaries)
        plan = Plan(
            action="train",
            mechanism="rehearsal",
            guarantee="heuristic",
            statement="canaries alone: nobody's data is touched, and nothing is released",
        )
        self._noise = GaussianNoise(Gate(entropy=entropy).open(plan))

    def step(self, members: NDArray[np.intp]) -> NDArray[np.float64]:
        """Sample, clip, add noise; return the noisy sum along each canary's direction, in clip bounds."""
        taken = np.asarray(members)[poisson(len(members), self.rate, self._entropy)]
        gradients = torch.zeros(len(taken), self.canaries)
        gradients[torch.arange(len(taken)), torch.from_numpy(taken)] = LENGTH * self._bound
        total = self._clipped(gradients, None)
        return self._noise.add(total, self._deviation, self._grid) / self._bound

    def contribution(self, gradients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what one unit with these gradients, (k, d), adds to the sum, in clip bounds."""
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, as in a run
            given = torch.from_numpy((gradients * self._bound).astype(np.float32))
        return self._clipped(given, torch.zeros(len(given), dtype=torch.long)) / self._bound

    def sample(self) -> NDArray[np.intp]:
        """Return the units of one step."""
        return poisson(self.units, self.rate, self._entropy)

    def _clipped(self, gradients: torch.Tensor, units: torch.Tensor | None) -> NDArray[np.float64]:
        if not len(gradients):
            return np.zeros(gradients.shape[1])
        model = torch.nn.Linear(gradients.shape[1], 1, bias=False)
        with torch.no_grad():
            model.weight.zero_()  # the loss is then a number whatever the gradients are
        engine = Engine(model, clipping=self._clipping)
        out = engine.gradients(lambda: model(gradients).squeeze(1), units)
        return out.sum["weight"].reshape(-1).double().numpy()
