"""Changes of one image in a batch, for the coupling probe.

A batch is any nest of tuples, lists and dicts whose tensors have one row per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sfumato.core.errors import InvalidRequest

#: (batch, which image) -> the batch with that image changed, or taken out.
Change = Callable[[Any, int], Any]


def tensors(batch: Any) -> Iterator[Tensor]:
    """Iterate over the tensors of a nest.

    >>> [t.shape[0] for t in tensors({"x": torch.zeros(3, 2), "y": [torch.zeros(3)]})]
    [3, 3]
    """
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from tensors(value)


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the nest with every tensor changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: mapped(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(value, change) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(mapped(value, change) for value in batch)
    return batch


def size(batch: Any) -> int:
    """Return how many images a batch has.

    Raises:
        InvalidRequest: its tensors do not agree, or there is none.
    """
    counts = {len(one) if one.ndim else 0 for one in tensors(batch)}
    if len(counts) != 1 or 0 in counts:
        raise InvalidRequest(
            f"every tensor of the batch must have one row per image; their first sizes are {sorted(counts)}"
        )
    return counts.pop()


def without(batch: Any, index: int) -> Any:
    """Return the batch without one image."""
    return mapped(batch, lambda one: torch.cat([one[:index], one[index + 1 :]]))


def _pictures(row: Callable[[Tensor], Tensor]) -> Change:
    """Change the rows of pictures (floating point, or bytes with more than one number); leave the rest."""

    def change(batch: Any, index: int) -> Any:
        def one(whole: Tensor) -> Tensor:
            if not (whole.is_floating_point() or (whole.dtype == torch.uint8 and whole.ndim > 1)):
                return whole
            copy = whole.clone()
            copy[index] = row(whole[index].float()).to(whole.dtype)
            return copy

        return mapped(batch, one)

    return change


def _noise(row: Tensor) -> Tensor:
    """Another picture, of the same range: what an ordinary neighbour would be."""
    generator = torch.Generator().manual_seed(90210)
    draw = torch.empty(row.shape).uniform_(generator=generator).to(row.device)
    low, high = row.min(), row.max()
    return low + draw * torch.where(high > low, high - low, torch.ones_like(high))


def _from_another(pick: Callable[[Tensor], bool]) -> Change:
    """Give the image what another one has, in those tensors where `pick` says so."""

    def change(batch: Any, index: int) -> Any:
        def one(whole: Tensor) -> Tensor:
            if not pick(whole):
                return whole
            copy = whole.clone()
            others = [j for j in range(len(whole)) if j != index]
            different = [j for j in others if not torch.equal(whole[j], whole[index])]
            copy[index] = whole[(different or others)[0]]
            return copy

        return mapped(batch, one)

    return change


def _is_label(whole: Tensor) -> bool:
    return not whole.is_floating_point() and not (whole.dtype == torch.uint8 and whole.ndim > 1)


def _both(first: Change, second: Change) -> Change:
    return lambda batch, index: second(first(batch, index), index)


_labels = _from_another(_is_label)

#: Tried on every image: strong, in both directions, with the labels.
STRONG: Mapping[str, Change] = {
    "much brighter, with another label": _both(_pictures(lambda row: 50 * row.abs() + 50), _labels),
    "much darker, with another label": _both(_pictures(lambda row: -50 * row.abs() - 50), _labels),
}
#: Tried on the first image.
SUBTLE: Mapping[str, Change] = {
    "another picture": _pictures(_noise),
    "all zero": _pictures(torch.zeros_like),
    "a little brighter": _pictures(lambda row: row * 1.01 + 0.01),
    "a copy of another image": _from_another(lambda whole: True),
    "another label alone": _labels,
}
#: Tried forwards only: whatever computes with this image becomes NaN, however small its part.
TAINT: Change = _pictures(lambda row: torch.full_like(row, float("nan")))
