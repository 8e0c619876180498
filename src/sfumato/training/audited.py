"""A run's own loop over canaries: what an audit calls, and what needs nobody's data and no budget.

An audit asks for three callables: a step over canaries, what one unit adds, and who is in a batch. Here they
are the very loop that people's runs go through (loop.py), with a run behind it that is charged to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import InvalidRequest
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.training.loop import Batch, Private
from sfumato.training.plan import PlannedRun
from sfumato.training.run import TrainingRun
from sfumato.training.sampling import Sample, poisson
from sfumato.training.settings import TrainingSettings, fraction
from sfumato.training.source import source_of

#: A canary's gradient is this many clip bounds long, so that clipping has to do its part.
LENGTH = 3.0


class Rehearsal:
    """Steps of a run with these settings, over canaries alone.

    >>> asked = TrainingSettings(noise_multiplier=1, delta="1e-5", rate="0.1", public_size=400, steps=3)
    >>> Rehearsal(asked, canaries=40).step(np.arange(20)).shape
    (40,)

    Args:
        settings: of the run; what is not in its loop (population, purpose) does not matter.
        canaries: how many; each is a direction of its own in a gradient of so many numbers.
        noise_multiplier: where the settings name a target epsilon: what the run's plan says.
        entropy: of sampling and noise.

    Raises:
        InvalidRequest: correlated noise (dp-ftrl), which has another claim, or no noise multiplier.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        *,
        canaries: int,
        noise_multiplier: Fraction = Fraction(0),
        entropy: Entropy = SYSTEM,
    ) -> None:
        sigma = noise_multiplier or fraction(settings.noise_multiplier)
        if settings.mechanism != "dp-sgd" or not sigma:
            raise InvalidRequest(
                "a rehearsal is of dp-sgd with a noise multiplier; got "
                f"{settings.mechanism} with {float(sigma)}"
            )
        self.canaries, self.settings = canaries, settings
        self.units = max(2, settings.public_size)
        self._entropy, self._bound = entropy, float(settings.clip)
        self._model = torch.nn.Linear(canaries, 1, bias=False)
        with torch.no_grad():
            self._model.weight.zero_()  # the loss is then a number, however long the gradients are
        self._kept = _Keep(self._model.parameters())
        run = _Uncharged(settings, _planned(settings, sigma), Gate(entropy=entropy).open(_PLAN))
        self._private = Private(
            self._model, _loss, optimizer=self._kept, run=cast(TrainingRun, run), engine=None
        )
        self._batches: Iterator[Batch] | None = None
        self._members: NDArray[np.intp] | None = None

    def step(self, members: NDArray[np.intp]) -> NDArray[np.float64]:
        """Sample, clip, add noise; return the noisy sum along each canary's direction, in clip bounds."""
        if self._batches is None or self._members is None or not np.array_equal(members, self._members):
            images = torch.zeros(len(members), self.canaries)
            images[torch.arange(len(members)), torch.from_numpy(np.asarray(members))] = LENGTH * self._bound
            self._batches = self._private.batches((images, torch.zeros(len(members))))
            self._members = members
        self._private.step(next(self._batches))
        return self._kept.gradient * self.settings.normaliser / self._bound

    def contribution(self, gradients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what one unit with these gradients, (k, canaries), adds to the sum, in clip bounds."""
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, as in a run
            given = torch.from_numpy((gradients * self._bound).astype(np.float32))
        count = len(given)
        fetch, _ = source_of((given, torch.zeros(count)))
        batch = Batch(Sample(np.arange(count), np.zeros(count, np.int64)), fetch)
        named = dict(self._model.named_parameters())
        sums, _ = self._private._sums(batch, named)
        return sums["weight"].reshape(-1).double().numpy() / self._bound

    def sample(self) -> NDArray[np.intp]:
        """Return the units of one step."""
        return poisson(self.units, fraction(self.settings.rate), self._entropy)


_PLAN = Plan(
    action="train",
    mechanism="rehearsal",
    guarantee="heuristic",
    statement="canaries alone: nobody's data is touched, and nothing is released",
)


@dataclass(slots=True)
class _Uncharged:
    """What the loop asks of a run, without a ledger: there is nobody to charge for canaries."""

    settings: TrainingSettings
    planned: PlannedRun
    permit: Permit
    begun: int = 0
    loaded: None = None
    left: int = 1

    def begin(self) -> int:
        self.begun += 1
        return self.begun

    def completed(self, loss: float | None = None) -> None:
        return


class _Keep(torch.optim.Optimizer):
    """Keeps the last gradient, and moves nothing."""

    def __init__(self, parameters: Iterator[torch.nn.Parameter]) -> None:
        super().__init__(list(parameters), {})
        self.gradient: NDArray[np.float64] = np.empty(0)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Keep the gradient."""
        (parameter,) = self.param_groups[0]["params"]
        self.gradient = parameter.grad.reshape(-1).double().numpy()


def _loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.squeeze(1)


def _planned(settings: TrainingSettings, sigma: Fraction) -> PlannedRun:
    return PlannedRun(settings, _PLAN, sigma, fraction(settings.delta), Fraction(0), "image", "sum")
