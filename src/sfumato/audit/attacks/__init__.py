"""Attacks on a finished model: one file each, found by name.

`build(**settings)` of an attack returns an `Attack`. It is given scores, never a model or data: whoever holds
the model computes them (a loss with its sign turned, a confidence, a logit), one per example, and higher
where the model knows the example better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.core.plugins import Catalogue

CATALOGUE = Catalogue("attack", "sfumato.audit.attacks", "sfumato.attacks")

#: Fewer members or others than this show nothing.
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Observed:
    """What an attack is given.

    >>> Observed(np.arange(20.0), np.arange(20) % 2 == 0).others
    10

    Args:
        scores: (n,) float; of the audited model, one per example; higher: better known.
        member: (n,) bool; whether the example was in the training data.
        shadow_scores: (s, n) float; of s models trained alike on data of which the audit knows the members.
        shadow_member: (s, n) bool; the shadow models' members.
        coins: each example was made a member by a fair coin of its own, as canaries are: only then is an
            epsilon from one model a bound; else it rests on the assumption that examples are independent.

    Raises:
        InvalidRequest: shapes that do not fit, a NaN, or too few members or others.
    """

    scores: NDArray[np.float64]
    member: NDArray[np.bool_]
    shadow_scores: NDArray[np.float64] | None = None
    shadow_member: NDArray[np.bool_] | None = None
    coins: bool = False

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or self.scores.shape != self.member.shape or self.member.dtype != np.bool_:
            raise InvalidRequest(
                "scores and member are (n,), the latter bool; got "
                f"{self.scores.shape} and {self.member.shape} {self.member.dtype}"
            )
        if np.isnan(self.scores).any():
            raise InvalidRequest(f"{int(np.isnan(self.scores).sum())} of {len(self.scores)} scores are NaN")
        if min(self.members, self.others) < FEWEST:
            raise InvalidRequest(
                f"an attack needs {FEWEST} members and {FEWEST} others at least, "
                f"got {self.members} and {self.others}"
            )
        shadows = (self.shadow_scores, self.shadow_member)
        if (shadows[0] is None) != (shadows[1] is None):
            raise InvalidRequest("shadow scores and shadow members come together")
        if shadows[0] is not None and shadows[1] is not None:
            shape = shadows[0].shape
            if len(shape) != 2 or shape[1] != len(self.scores) or shape != shadows[1].shape:
                raise InvalidRequest(f"shadow scores and members are (s, {len(self.scores)}), got {shape}")
            if np.isnan(shadows[0]).any():
                raise InvalidRequest("shadow scores hold a NaN")

    @property
    def members(self) -> int:
        """How many examples were in the data."""
        return int(self.member.sum())

    @property
    def others(self) -> int:
        """How many were not."""
        return len(self.member) - self.members


@dataclass(frozen=True, slots=True)
class Attacked:
    """What an attack reached.

    Args:
        attack: its name.
        auc: chance that a member scores above another example; 0.5 is blind.
        rates: at low false positive rates: (false positive rate, true positive rate, its bounds).
        epsilon: a lower bound on the model's epsilon; 0.0 says nothing.
        confidence: of `epsilon` and of the bounds in `rates`.
        assumes: what `epsilon` rests on; empty: on nothing but the members' coins.
        p: the chance to reach this by guessing blindly.
        facts: more figures, by name.
    """

    attack: str
    auc: float
    rates: tuple[tuple[float, float, float, float], ...]
    epsilon: float
    confidence: float
    assumes: str
    p: float
    facts: dict[str, float] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "attack": self.attack,
            "auc": self.auc,
            "rates": [
                {"false_positive_rate": f, "true_positive_rate": t, "lower": low, "upper": high}
                for f, t, low, high in self.rates
            ],
            "epsilon": self.epsilon,
            "confidence": self.confidence,
            "assumes": self.assumes,
            "p": self.p,
            **{name: value if math.isfinite(value) else None for name, value in self.facts.items()},
        }


@runtime_checkable
class Attack(Protocol):
    """Tells members from others by scores."""

    @property
    def name(self) -> str:
        """As it is found in the catalogue."""
        ...

    def run(self, observed: Observed, *, delta: float = 0.0, confidence: float = 0.95) -> Attacked:
        """Attack.

        Args:
            observed: scores.
            delta: of the claim, for the bound on epsilon.
            confidence: of the bounds.

        Raises:
            InvalidRequest: it needs shadow models and there are none.
        """
        ...
