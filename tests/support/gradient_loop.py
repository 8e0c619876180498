"""The slow, plain way to clipped sums of gradients: one unit at a time, by autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sfumato.training.engine import Clipped, Clipping, Engine
from sfumato.training.engine.choose import forced

#: Makes the losses (B,) of a model on some inputs.
Loss = Callable[[nn.Module, Tensor], Tensor]

#: Relative to the largest entry of the sum.
EXACT = {torch.float64: 1e-12, torch.float32: 1e-5}


def curved(model: nn.Module, x: Tensor) -> Tensor:
    """A loss of each image with all kinds of slopes."""
    out = model(x).flatten(1)
    return (out.square() + out.sin()).sum(1)


def by_loop(
    model: nn.Module,
    x: Tensor,
    *,
    loss: Loss = curved,
    bound: float = 1.0,
    units: Tensor | None = None,
    views: int = 1,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return clipped sums and norms, in float64, flat clipping."""
    model = copy.deepcopy(model).double()
    x = x.double() if x.is_floating_point() else x
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    units = torch.arange(len(x)) // views if units is None else units
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in named.items()}
    norms = []
    for unit in torch.unique(units):
        total = {name: torch.zeros_like(p, requires_grad=False) for name, p in named.items()}
        for image in (units == unit).nonzero().flatten():
            value = loss(model, x[image : image + 1]).sum() / views
            found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
            for name, grad in zip(named, found, strict=True):
                if grad is not None:
                    total[name] += grad
        norm = torch.stack([grad.square().sum() for grad in total.values()]).sum().sqrt()
        norms.append(norm)
        factor = min(1.0, bound * (1 - 2.0**-10) / float(norm)) if float(norm) else 1.0
        for name, grad in total.items():
            sums[name] += factor * grad
    return sums, torch.stack(norms)


def by_engine(
    model: nn.Module,
    x: Tensor,
    *,
    loss: Loss = curved,
    bound: float = 1.0,
    units: Tensor | None = None,
    views: int = 1,
    kernel: str = "",
) -> Clipped:
    """Return what the engine finds, with a kernel where it is available."""
    engine = Engine(model, clipping=Clipping("flat", bound))
    with forced(*([kernel] if kernel else [])):
        return engine.gradients(lambda: loss(model, x), units=units, views=views)


def difference(found: Clipped, expected: tuple[dict[str, Tensor], Tensor]) -> float:
    """Return the largest difference of sums and norms, relative to the largest entry of each."""
    sums, norms = expected
    assert set(found.sum) == set(sums)
    largest = max(float(value.abs().max()) for value in sums.values())
    apart = max(float((found.sum[name].double() - sums[name]).abs().max()) for name in sums)
    lengths = float(((found.norms.double() - norms).abs() / norms.clamp_min(1e-30)).max())
    return max(apart / largest, lengths)


def same(model: nn.Module, x: Tensor, **how: object) -> float:
    """Return how far the engine is from the loop."""
    kernel = how.pop("kernel", "")
    expected = by_loop(model, x, **how)  # type: ignore[arg-type]
    found = by_engine(model, x, kernel=kernel, **how)  # type: ignore[arg-type]
    return difference(found, expected)
