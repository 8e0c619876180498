"""What a training run was asked to do: frozen, checked, and computed from public numbers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

from sfumato.core.consent import Evidence
from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.core.event import MAX_TIMES
from sfumato.core.gate import UNDECLARED
from sfumato.core.numbers import Amount, rational, text

ClippingKind = Literal["flat", "automatic", "per-layer"]
Mechanism = Literal["dp-sgd", "dp-ftrl"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """One private training run, in public numbers.

    >>> asked = TrainingSettings(epsilon=3, delta="1e-5", expected_batch=512, public_size=60_000, epochs=20)
    >>> asked.rate, asked.steps
    (Fraction(16, 1875), 2344)

    The size of the data is private (a neighbour has one person more or less), so the rate and the normaliser
    must not be computed from it: give two of `rate`, `expected_batch` and `public_size`, where the last is a
    size that may be known, such as one that was published or rounded.

    Args:
        epsilon, noise_multiplier: exactly one: the target at `delta`, or the noise's deviation over `clip`.
        delta: for a share of kind `sum`, the part of its delta that the run takes; for a filter, the delta
            that `epsilon` is meant at (default: the share's).
        rate: probability with which each privacy unit is in a step.
        expected_batch: units in a step on average; the public constant that gradients are divided by.
        public_size: a public number of units.
        steps, epochs: exactly one: how many steps, or how many times each unit is seen on average.
        clip: most that a unit's gradient may be long (L2).
        clipping: flat, automatic or per-layer.
        views: augmented views of each image, averaged before clipping.
        physical_batch: images (views counted) that are worked on at once: memory, and nothing else.
        images_per_unit: most images of one unit in a step, drawn anew each time; 0: `physical_batch`.
        mechanism: dp-sgd (Poisson samples), or dp-ftrl (correlated noise, fixed order; see ftrl.py).
        bands: of dp-ftrl: its noise is correlated over so many steps, at most one over the rate.
        precision: of the forward and backward pass; sums and noise are not affected.
        population, share, purpose, datasets, consent: as in `Plan`; population and share may be left out
            where the policy has one.
        count_ahead: steps that the journal counts at once: 1 loses none to a crash, more spare writes.
        insecure_debug: report losses on private data while training; the run's receipt then says so.

    Raises:
        InvalidRequest: says which value is out of range, and what would do.
    """

    delta: Amount = 0
    epsilon: Amount = 0
    noise_multiplier: Amount = 0
    rate: Amount = 0
    expected_batch: Amount = 0
    public_size: int = 0
    steps: int = 0
    epochs: Amount = 0
    clip: float = 1.0
    clipping: ClippingKind = "flat"
    views: int = 1
    physical_batch: int = 256
    images_per_unit: int = 0
    mechanism: Mechanism = "dp-sgd"
    bands: int = 1
    precision: Precision = "float32"
    population: str = ""
    share: str = ""
    purpose: str = UNDECLARED
    datasets: tuple[tuple[str, str], ...] = field(default=())
    consent: Evidence | None = None
    count_ahead: int = 1
    insecure_debug: bool = False

    def __post_init__(self) -> None:
        delta = rational(self.delta, name="delta")
        self._put(delta=delta)
        if delta >= 1:
            raise InvalidRequest(f"delta must be far below 1, got {self.delta!r}")
        self._amounts()
        self._sampling()
        self._length()
        for name, most in _WHOLE.items():
            _whole(name, getattr(self, name), most)
        if isinstance(self.clip, bool) or not 1e-30 < self.clip < 1e30:
            raise InvalidRequest(f"clip must lie in 1e-30..1e30, got {self.clip!r}")
        for name, kind in (("clipping", ClippingKind), ("mechanism", Mechanism), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise UnknownName(name, str(getattr(self, name)), get_args(kind))
        if self.bands > 1 and self.mechanism != "dp-ftrl":
            raise InvalidRequest(f"bands are of dp-ftrl, and the mechanism is {self.mechanism!r}")
        if self.bands > self.period:
            raise InvalidRequest(
                f"bands must be at most {self.period}, the steps between two uses of a unit (one over the "
                f"rate): got {self.bands}"
            )

    def _put(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _amounts(self) -> None:
        epsilon = rational(self.epsilon, name="epsilon")
        sigma = rational(self.noise_multiplier, name="noise_multiplier")
        if (epsilon == 0) == (sigma == 0):
            raise InvalidRequest(
                "give a target epsilon or a noise_multiplier, and not both (got "
                f"{self.epsilon!r} and {self.noise_multiplier!r})"
            )
        self._put(epsilon=epsilon, noise_multiplier=sigma)

    def _sampling(self) -> None:
        rate = rational(self.rate, name="rate")
        batch = rational(self.expected_batch, name="expected_batch")
        size = _whole("public_size", self.public_size, (0, 2**40))
        given = (rate > 0) + (batch > 0) + (size > 0)
        if given == 2:
            rate = rate or batch / size
            batch = batch or rate * size
        elif given != 3 or rate * size != batch:
            raise InvalidRequest(
                "give two of rate, expected_batch and public_size, as public numbers (never computed from "
                f"the number of people in the data); got {self.rate!r}, {self.expected_batch!r} and {size}"
            )
        if not 0 < rate <= 1:
            raise InvalidRequest(
                f"each unit is in a step with probability {text(rate)}, which must lie above 0 and up to 1: "
                "expected_batch is at most public_size"
            )
        self._put(rate=rate, expected_batch=batch, public_size=size)

    def _length(self) -> None:
        epochs, steps = rational(self.epochs, name="epochs"), _whole("steps", self.steps, (0, MAX_TIMES))
        if (epochs == 0) == (steps == 0):
            raise InvalidRequest(
                f"give steps or epochs, and not both (got {self.steps!r} and {self.epochs!r})"
            )
        self._put(
            steps=steps or math.ceil(epochs / fraction(self.rate)),
            epochs=epochs or fraction(self.rate) * steps,
        )
        _whole("steps", self.steps, (1, MAX_TIMES))

    @property
    def normaliser(self) -> float:
        """The public constant that noisy sums are divided by."""
        return float(self.expected_batch)

    @property
    def period(self) -> int:
        """Of dp-ftrl: each unit is used once in so many steps."""
        return max(1, math.floor(1 / fraction(self.rate)))

    def rounds(self, steps: int) -> int:
        """Return how many Gaussian events a number of steps is for one unit."""
        return steps if self.mechanism == "dp-sgd" else -(-steps // self.period)

    @property
    def most_images(self) -> int:
        """Most images of one unit in a step."""
        return self.images_per_unit or max(1, self.physical_batch // self.views)

    def parameters(self) -> Mapping[str, Any]:
        """Return what the receipt and the plan say of it, as plain data."""
        data: dict[str, Any] = {
            "steps": self.steps,
            "rate": text(fraction(self.rate)),
            "expected_batch": text(fraction(self.expected_batch)),
            "clip": repr(float(self.clip)),
            "clipping": self.clipping,
            "views": self.views,
            "precision": self.precision,
        }
        if self.images_per_unit:
            data |= {"images_per_unit": self.images_per_unit}
        if self.mechanism == "dp-ftrl":
            data |= {"bands": self.bands}
        if self.insecure_debug:
            data |= {"insecure_debug": True}
        return data


_WHOLE = {
    "views": (1, 1024),
    "physical_batch": (1, 2**31),
    "images_per_unit": (0, 2**31),
    "bands": (1, 2**20),
    "count_ahead": (1, 10**6),
}


def _whole(name: str, value: Any, bounds: tuple[int, int]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not bounds[0] <= value <= bounds[1]:
        raise InvalidRequest(f"{name} must be a whole number of {bounds[0]}..{bounds[1]}, got {value!r}")
    return value


def fraction(value: Any) -> Fraction:
    """Return a settings' amount, which is exact once the settings exist."""
    assert isinstance(value, Fraction)
    return value
