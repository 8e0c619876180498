"""How a convolution walks over its input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution walks over its input; every tuple has a number per spatial dimension."""

    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    extra: tuple[int, ...] = ()

    def backward(
        self, g: Tensor, x: Tensor, weight: Tensor, mask: tuple[bool, bool], groups: int = 0
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of input and weight, each where asked for."""
        out = torch.ops.aten.convolution_backward(
            g,
            x,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.extra or (0,) * len(self.stride),
            groups or self.groups,
            (*mask, False),
        )
        return out[0], out[1]
