"""The engine against plain autograd, on one image of the first batch.

What is recorded is right by construction where dim 0 is the batch. Where it is not (windows, tokens first),
where images meet each other (a norm over the batch, a loss that is divided by the batch's sum) or where a
kernel is wrong, the gradient of one image's loss by plain autograd is another than the engine's row for that
image. Operations without parameters are run by autograd as the engine runs them (`Faster`): what passes from
image to image there is in the sum of all rows here, and not in the image's own row there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sfumato.core.errors import InvalidRequest
from sfumato.training.engine.tape import Faster

#: Largest difference, relative to the parameter's largest number, by the coarsest type that took part.
TOLERANCES = {torch.float64: 1e-7, torch.float32: 5e-3, torch.bfloat16: 0.2, torch.float16: 0.1}


def plain(
    losses: Callable[[], Tensor], parameters: Mapping[str, Tensor], image: int
) -> dict[str, Tensor] | None:
    """Return the gradient of an image's loss by plain autograd; None: a batch that shows nothing."""
    with torch.enable_grad():
        with Faster():
            found = losses()
        if not found.requires_grad:
            return None
        grads = torch.autograd.grad(found[image], list(parameters.values()), allow_unused=True)
    out = {
        name: torch.zeros_like(parameter, requires_grad=False) if grad is None else grad
        for (name, parameter), grad in zip(parameters.items(), grads, strict=True)
    }
    return out if all(bool(grad.isfinite().all()) for grad in out.values()) else None


def compare(
    image: int, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], coarsest: torch.dtype
) -> None:
    """Refuse where the engine's gradient of an image is another than autograd's.

    Raises:
        InvalidRequest: with the parameters' names.
    """
    tolerance = TOLERANCES.get(coarsest, 0.2)
    if expected and next(iter(expected.values())).device.type != "cpu":
        tolerance = max(tolerance, 0.02)
    largest = max((float(grad.abs().max()) for grad in expected.values() if grad.numel()), default=0.0)
    wrong = []
    for name, grad in expected.items():
        if not grad.numel():
            continue
        allowed = tolerance * (float(grad.abs().max()) + 0.01 * largest)
        difference = float((found[name] - grad).abs().max())
        if not difference <= allowed:
            wrong.append(f"{name} (differs by {difference:.2g}, allowed {allowed:.2g})")
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise InvalidRequest(
            f"the gradient of image {image} is not the one that plain autograd gives, so nothing is bounded: "
            f"{shown}. Either images meet each other (batch statistics, a loss divided by something of the "
            "whole batch, mixed images), or dim 0 of an activation is not the batch, or the callable draws "
            "random numbers outside torch, so that no two runs agree."
        )
