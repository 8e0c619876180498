"""The loss-threshold attack: whom the model fits best were in its data.

Source: Yeom, Giacomelli, Fredrikson, Jha 2018 (arXiv 1709.01604); true positive rates at low false positive
rates as Carlini et al. 2022 (arXiv 2112.03570) ask for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.audit.attacks import Attack, Attacked, Observed
from sfumato.audit.attacks._scores import judge

SUMMARY = "one threshold on the model's score for all examples: weak and free"
NEEDS = ("scipy",)
EXTRA = ""


def build() -> Attack:
    """Build the attack; it has no settings.

    >>> import numpy as np
    >>> score = np.concatenate([np.arange(50) + 20.0, np.arange(50.0)])
    >>> 0.5 < build().run(Observed(score, np.arange(100) < 50)).auc < 1
    True
    """
    return _Membership()


@dataclass(frozen=True, slots=True)
class _Membership:
    name: str = "membership"

    def run(self, observed: Observed, *, delta: float = 0.0, confidence: float = 0.95) -> Attacked:
        return judge(self.name, observed.scores, observed, delta, confidence)
