"""Does an augmentation keep images apart? Mixup, mosaics and cutmix do not, and clipping then bounds
nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sfumato.core.errors import InvalidRequest
from sfumato.training.coupling import made_up

#: Chance may leave the changed image alone once; in so many tries it hardly does.
TRIES = 8


def check_augment(augment: Callable[[Any], Any], images: Any) -> None:
    """Change one of some made-up images, and refuse an augmentation by which another one moves.

    >>> check_augment(lambda x: x.flip(-1), torch.zeros(1, 3, 8, 8))

    Guarantee (tested):
        Under PyTorch's generator in the same state, no other image moved by a bit in 8 tries. An augmentation
        that draws chance from elsewhere cannot be tried, and passes.

    Args:
        images: at least one, as a tensor: its shape and type are looked at, and nothing else.

    Raises:
        InvalidRequest: images are mixed, or their number changes.
    """
    if not isinstance(images, torch.Tensor) or not images.ndim:
        return
    batch, device = made_up(images).to(images.device), images.device
    other = batch.clone()
    other[0] = 3 - 2 * batch[0] if batch.is_floating_point() else batch[0] // 2 + 3
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for seed in range(TRIES):
            seen = [_called(augment, one, seed) for one in (batch, batch, other)]
            if seen[0].shape[:1] != batch.shape[:1]:
                raise InvalidRequest(
                    f"the augmentation makes {tuple(seen[0].shape)} of {tuple(batch.shape)}: it must give "
                    "one "
                    "image for each; several views of each are asked for by views="
                )
            if not torch.equal(seen[0], seen[1]):
                return
            if not torch.equal(seen[0][1:], seen[2][1:]):
                raise InvalidRequest(
                    "the augmentation mixes images (as mixup, cutmix and mosaics do): one person's "
                    "picture would "
                    "move what is clipped as another's. Take one that works on each image by itself"
                )


def _called(augment: Callable[[Any], Any], images: torch.Tensor, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    found = augment(images.clone())
    if not isinstance(found, torch.Tensor) or not found.ndim:
        raise InvalidRequest(f"the augmentation must give a tensor of images, got {type(found).__name__}")
    return found
