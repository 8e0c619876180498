"""Activations that the backward computes again, where both input and output would be kept.

GELU and its like keep their input for their own gradient, and layer norm does; a linear layer behind them
would keep their output too, for its weight's gradient. That is a third of what a vision transformer keeps,
and costs a hundredth or two of a step to compute again: layers that multiply take all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

#: Functions of one tensor and public settings that keep their input for the backward.
KEEP_INPUT = frozenset({F.gelu, F.silu, F.mish, F.hardswish})


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a tensor is computed again.

    Args:
        input: what it is computed from, and what its own operation keeps.
        run: does it; it holds no activation.
        versions: of input and output, which say whether either has been written to since.
    """

    input: Tensor
    run: Callable[[Tensor], Tensor]
    versions: tuple[int, int]


class Recipes:
    """The recipes of one pass; each ends with its tensor, so that nothing is kept by it."""

    def __init__(self) -> None:
        self._found: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def enter(self, out: Tensor, input: Tensor, run: Callable[[Tensor], Tensor]) -> None:
        """Enter how `out` came from `input`; nothing where the input is not kept, or is the output."""
        if input.requires_grad and out is not input and out.requires_grad:
            self._found[out] = Recipe(input, run, (input._version, out._version))

    def of(self, tensor: Tensor) -> Recipe | None:
        """Return a tensor's recipe, if it still holds."""
        if tensor not in self._found:
            return None
        recipe: Recipe = self._found[tensor]
        if recipe.versions != (recipe.input._version, tensor._version):
            return None
        return recipe

    def note(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """Enter the result of an operation that meets no parameter."""
        if func in KEEP_INPUT and len(args) == 1 and isinstance(args[0], Tensor) and isinstance(out, Tensor):
            self.enter(out, args[0], lambda input: func(input, **kwargs))
