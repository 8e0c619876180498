"""A look at private validation pictures is a release of its own: a noisy mean, charged before it is drawn.

Choosing among models by it costs as well: every trial is a run with a charge of its own, and so is every
look.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.core.calibration import noise_multiplier_for
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import Gaussian
from sfumato.core.gate import Gate, Plan
from sfumato.core.numbers import Amount, brief, float_up, rational, text
from sfumato.core.receipt import Receipt
from sfumato.mechanisms.gaussian import GaussianNoise, grid_for
from sfumato.training.plan import PlannedRun
from sfumato.training.sampling import Units

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A noisy mean over private validation data.

    Args:
        value: between 0 and 1.
        deviation: of the noise in it.
        receipt: of the release.
    """

    value: float
    deviation: float
    receipt: Receipt


def evaluate(
    gate: Gate,
    planned: PlannedRun,
    scores: Any,
    *,
    epsilon: Amount,
    public_size: int,
    units: Sequence[Hashable] | None = None,
    delta: Amount = 0,
) -> Evaluation:
    """Release the mean score of private images, such as the share that was classified rightly.

    Guarantee:
        (epsilon, delta)-differentially private for the run's privacy unit, add-or-remove-one: a unit's images
        are averaged and count for at most 1 together; Gaussian noise on the sum; divided by a public number.

    Args:
        scores: (n,) one number in 0..1 for each image, or True and False.
        epsilon, delta: of this look; it is charged to the run's population and share. delta: default, the
            run's.
        public_size: number of units to divide by, from public knowledge.
        units: whose each image is; needed unless the unit is image.

    Raises:
        BudgetSpent, PolicyRefused: nothing was released. InvalidRequest: scores outside 0..1.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not bool(((values >= 0) & (values <= 1)).all()):
        raise InvalidRequest(
            "scores are one number in 0..1 for each image, such as whether the model was right"
        )
    if isinstance(public_size, bool) or not isinstance(public_size, int) or public_size < 1:
        raise InvalidRequest(
            f"public_size is a whole number from 1, known without the data; got {public_size!r}"
        )
    total = _sum(values, planned.unit, units)
    asked = planned.settings
    at = rational(delta, name="delta") or planned.delta
    sigma = noise_multiplier_for(
        epsilon=epsilon, delta=at, rate=1, steps=1, by="pld" if planned.kind == "sum" else "renyi"
    )
    plan = Plan(
        action="train",
        mechanism="private validation",
        guarantee="proven",
        statement=f"A mean score with Gaussian noise of {text(sigma)}, differentially private for one "
        f"{planned.unit}, added or removed, with all its images: epsilon {brief(rational(epsilon))} at delta "
        f"{brief(at)}.",
        parameters={"noise_multiplier": text(sigma), "public_size": public_size},
        purpose=asked.purpose,
        event=Gaussian(sigma),
        population=asked.population,
        share=asked.share,
        delta=at if planned.kind == "sum" else 0,
        datasets=asked.datasets,
        consent=asked.consent,
    )
    deviation = float_up(sigma * (1 + Fraction(1, 1024)))  # what rounding on the grid takes
    with gate.open(plan) as permit:
        noisy = float(GaussianNoise(permit).add(np.array([total]), deviation, grid_for(1.0, 1))[0])
        value = min(1.0, max(0.0, noisy / public_size))
        receipt = permit.settle(
            facts={"value": f"{value:.6g}", "deviation": f"{deviation / public_size:.3g}"}
        )
    return Evaluation(value, deviation / public_size, receipt)


def _sum(values: NDArray[np.float64], unit: str, units: Sequence[Hashable] | None) -> float:
    """Return the sum over units of their mean score."""
    if units is None:
        if unit != "image":
            raise InvalidRequest(
                f"the population's privacy unit is {unit}: say whose each image is, by units=[...]"
            )
        return float(values.sum())
    if len(units) != len(values):
        raise InvalidRequest(f"{len(values)} scores have {len(units)} units: give one key for each")
    whose = Units.of(units)
    return float(sum(values[whose.images(index)].mean() for index in range(len(whose))))
