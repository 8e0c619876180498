"""The clip bound: code that keeps it under all gradients, and code that does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from dpsgd import Mechanism
from numpy.typing import NDArray

from sfumato.audit.direct import clipping
from sfumato.core.errors import InvalidRequest

Gradients = NDArray[np.float64]


def good(gradients: Gradients) -> Gradients:
    return Mechanism(1.0, 0.1, 32, 1).contribution(gradients)


def float32(gradients: Gradients) -> Gradients:
    """Squares overflow in float32, the factor becomes 0 or the norm infinite: safe, if the nan is caught."""
    with np.errstate(all="ignore"):
        total = gradients.astype(np.float32).sum(axis=0)
        norm = np.sqrt((total * total).sum())
        factor = np.minimum(1.0, (1 - 2.0**-10) / norm) if norm > 0 else 1.0
        out = factor * total
    return np.where(np.isfinite(out).all(), out, 0.0).astype(np.float64)


def unclipped(gradients: Gradients) -> Gradients:
    return np.nan_to_num(gradients).sum(axis=0)


def per_image(gradients: Gradients) -> Gradients:
    """Each gradient of a unit is clipped, and then all are added: the unit adds more than the bound."""
    return np.sum([good(one[None]) for one in gradients], axis=0)


def passes_nan(gradients: Gradients) -> Gradients:
    total = gradients.sum(axis=0)
    with np.errstate(all="ignore"):
        return total * min(1.0, 1 / max(float(np.linalg.norm(total)), 1e-300))


def per_coordinate(gradients: Gradients) -> Gradients:
    return np.clip(np.nan_to_num(gradients.sum(axis=0)), -1, 1)


def normed(gradients: Gradients) -> Gradients:
    """Divides by the norm plus too little."""
    total = np.nan_to_num(good(gradients) * 1.0)
    return total * (1 + 1e-6)


def overflowing(gradients: Gradients) -> Gradients:
    """The squared norm overflows to infinity: what then passes unclipped is the whole gradient."""
    with np.errstate(all="ignore"):
        total = np.nan_to_num(gradients.sum(axis=0))
        norm = float(np.sqrt(np.float32((total.astype(np.float32) ** 2).sum())))
    return total / norm if np.isfinite(norm) and norm > 1 else total


@pytest.mark.parametrize("size", [1, 5, 300])
@pytest.mark.parametrize("contribution", [good, float32])
def test_clipping_that_keeps_the_bound_passes(contribution: Callable[..., Gradients], size: int) -> None:
    finding = clipping(contribution, size)
    assert finding.p == 1.0, finding.said


@pytest.mark.parametrize(
    "contribution", [unclipped, per_image, passes_nan, per_coordinate, normed, overflowing]
)
def test_clipping_that_breaks_it_is_found(contribution: Callable[..., Gradients]) -> None:
    assert clipping(contribution, 50).p == 0.0


def test_units_of_one_gradient_need_not_add_up() -> None:
    assert clipping(per_image, 50, several=False).p == 1.0


def test_another_bound() -> None:
    assert clipping(lambda g: 0.5 * good(g), 20, bound=0.5).p == 1.0
    assert clipping(good, 20, bound=0.5).p == 0.0


def test_a_contribution_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="50 numbers"):
        clipping(lambda g: np.zeros(3), 50)
