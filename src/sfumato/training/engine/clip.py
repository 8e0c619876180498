"""What one unit may contribute: kinds of clipping, and the bound that holds in floating point too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfumato.core.errors import InvalidRequest, UnknownName

#: Clipped a little below the bound, so that rounding in float32 never carries a contribution above it.
MARGIN = 1 - 2.0**-10

KINDS = ("flat", "automatic", "per-layer")


@dataclass(frozen=True, slots=True)
class Clipping:
    """How a unit's gradient is made no longer than `bound`.

    >>> Clipping("flat", 1.0).sensitivity
    1.0

    Guarantee: for every unit, factor * gradient has an L2 norm of at most `bound`, whatever the data; adding
    or removing one unit moves the sum by no more.

    Args:
        kind: "flat" (min(1, C/norm)), "automatic" (C/(norm + gamma): every gradient gets nearly the same
            length) or "per-layer" (flat for each layer, with C/sqrt(layers) each).
        bound: C, the L2 bound, above 0.
        gamma: of "automatic", above 0.

    Raises:
        InvalidRequest: a value outside its range. UnknownName: another kind.

    Source: Abadi et al., "Deep Learning with Differential Privacy" (2016); automatic: Bu, Wang, Zha and
    Karypis, "Automatic Clipping" (2022).
    """

    kind: str = "flat"
    bound: float = 1.0
    gamma: float = 0.01

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("clipping", str(self.kind), KINDS)
        for name in ("bound", "gamma"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InvalidRequest(f"{name} must be a number above 0, got {value!r}")

    @property
    def sensitivity(self) -> float:
        """The L2 bound of one unit's contribution to the sum."""
        return float(self.bound)

    def factors(self, squares: Tensor, layers: int = 1) -> Tensor:
        """Return what each unit's gradient is multiplied by.

        Args:
            squares: squared norms, float, any shape.
            layers: among how many layers the bound is shared.
        """
        bound = self.bound / math.sqrt(layers) * MARGIN
        norms = squares.clamp_min(0).sqrt()
        if self.kind == "automatic":
            factors = bound / (norms + self.gamma)
        else:
            factors = (bound / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1)
        return torch.where(squares.isfinite(), factors, torch.zeros_like(factors))


@dataclass(frozen=True, slots=True)
class Clipped:
    """The clipped sum of the units' gradients.

    Args:
        sum: name of the parameter -> sum over units of factor * gradient; the parameter's shape and
            type, in single precision at least.
        norms: (U,) L2 norms before clipping; not finite where a gradient was not.
        factors: (U,) what each gradient was multiplied by; with per-layer clipping, the smallest of its
            layers.
        units: U.
        layers: with per-layer clipping, layer -> (U,) factors.
    """

    sum: Mapping[str, Tensor]
    norms: Tensor
    factors: Tensor
    units: int
    layers: Mapping[str, Tensor] = field(default_factory=dict)
