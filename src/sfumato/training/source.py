"""Images by number, from whatever holds them: a pair of tensors, a dataset with items, or a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from sfumato.core.errors import InvalidRequest
from sfumato.training.sampling import Indices

Fetch = Callable[[Indices], tuple[Any, Any]]


def source_of(data: Any) -> tuple[Fetch, int]:
    """Return what fetches (images, targets) by their numbers, and how many there are.

    Args:
        data: (images, targets) as tensors or arrays of one length; or a dataset with `len` and items
            (image, target), such as PyTorch's.

    Raises:
        InvalidRequest: something else, or lengths that differ.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and all(map(_is_array, data)):
        images, targets = (torch.as_tensor(one) for one in data)
        if len(images) != len(targets):
            raise InvalidRequest(f"{len(images)} images have {len(targets)} targets: give one for each")

        def pick(indices: Indices) -> tuple[Any, Any]:
            chosen = torch.from_numpy(np.ascontiguousarray(indices))
            return images.index_select(0, chosen), targets.index_select(0, chosen)

        return pick, len(images)
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise InvalidRequest(
            "data are a pair of tensors (images, targets), or a dataset with len() and items (image, "
            f"target); got {type(data).__name__}. What comes as a stream cannot be sampled by unit."
        )

    def collect(indices: Indices) -> tuple[Any, Any]:
        items = [data[int(index)] for index in indices]
        return together([item[0] for item in items]), together([item[1] for item in items])

    return collect, len(data)


def together(items: Sequence[Any]) -> Any:
    """Return items as one tensor where they are numbers or tensors of one shape, else as a list."""
    first = items[0]
    if isinstance(first, torch.Tensor):
        same = all(isinstance(item, torch.Tensor) and item.shape == first.shape for item in items)
        return torch.stack(list(items)) if same else list(items)
    if isinstance(first, np.ndarray | np.generic | int | float):
        arrays = [np.asarray(item) for item in items]
        if all(array.shape == arrays[0].shape for array in arrays):
            return torch.from_numpy(np.stack(arrays))
    return list(items)


def repeated(values: Any, times: int) -> Any:
    """Return every item `times` times over, one after the other."""
    if times == 1:
        return values
    if isinstance(values, torch.Tensor):
        return values.repeat_interleave(times, 0)
    return [value for value in values for _ in range(times)]


def moved(values: Any, device: torch.device) -> Any:
    """Return values on a device, where they are tensors."""
    if isinstance(values, torch.Tensor):
        return values.to(device, non_blocking=True)
    if isinstance(values, list):
        return [moved(value, device) for value in values]
    return values


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 0
