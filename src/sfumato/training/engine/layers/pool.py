"""Max pooling on processors, where PyTorch's takes a half of a small network's step.

PyTorch walks over each window by itself. Here windows are taken of all places at once, by comparing the
image with itself, shifted: as whole rows of memory, in which the places where a window would wrap around an
edge are computed too, and never read. The numbers are those of PyTorch, and so are the gradients (of equal
numbers in a window the first one gets it). What it saves for the backward pass is what is there anyway, and
no indices of eight bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfumato.training.engine.table import faster

#: Bytes of images at a time: what is computed from them is still in the cache when it is used.
CACHE = 2**20

#: Windows of more numbers, or of a larger share of places left out, are left to PyTorch.
LARGEST, SPARSEST = 9, 4


class _Pool(torch.autograd.Function):
    """Max pooling without padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        ctx.window, ctx.stride = window, stride
        height, width = x.shape[2:]
        rows, columns = (height - window[0]) // stride[0] + 1, (width - window[1]) // stride[1] + 1
        out = x.new_empty(*x.shape[:2], rows, columns)
        parts = chunks(x)
        room = x.new_empty(2, x[parts[0]].numel())
        for part in parts:
            across = largest(x[part].view(-1), window[1], 1, room[0])
            best = largest(across, window[0], x.shape[-1], room[1])
            out[part] = taken(best, out[part], x, stride)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        parts = chunks(x)
        room = x.new_empty(4 if max(ctx.window) > 2 else 3, x[parts[0]].numel())
        for part in parts:
            some(dx[part].view(-1), x[part], g[part], ctx.window, ctx.stride, room)
        return dx, None, None


def chunks(x: Tensor) -> list[slice]:
    """Return parts of the images."""
    step = max(1, CACHE // max(1, x[:1].numel() * x.element_size()))
    return [slice(first, first + step) for first in range(0, len(x), step)]


def largest(rows: Tensor, size: int, step: int, room: Tensor) -> Tensor:
    """Return the largest of `size` numbers, `step` apart, from each place on."""
    best = rows
    for shift in range(step, size * step, step):
        end = len(rows) - shift
        best = torch.maximum(best[:end], rows[shift:], out=room[:end])
    return best


def taken(rows: Tensor, like: Tensor, x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Return a row of memory, laid out like x, at the places where windows begin."""
    width, plane = x.shape[-1], x.shape[-2] * x.shape[-1]
    steps = (x.shape[1] * plane, plane, stride[0] * width, stride[1])
    return rows.as_strided(like.shape, steps, rows.storage_offset())


def some(
    dx: Tensor, x: Tensor, g: Tensor, window: tuple[int, int], stride: tuple[int, int], room: Tensor
) -> None:
    """Write the gradient of a few images to dx."""
    rows, width = x.view(-1), x.shape[-1]
    room = room[:, : len(rows)]
    across = largest(rows, window[1], 1, room[0])
    best = largest(across, window[0], width, room[1])
    taken(dx.zero_(), g, x, stride).copy_(g)
    # The first row of a window that has its largest number, and in it the first place.
    of_rows = room[2][: len(across)]
    passed(of_rows, across, best, dx, width, room[-1])
    passed(dx, rows, across, of_rows, 1, room[-1])


def passed(into: Tensor, rows: Tensor, best: Tensor, left: Tensor, step: int, room: Tensor) -> None:
    """Write to each place what windows hand to it: the first of numbers `step` apart that is the largest.

    Args:
        left: what windows have, which is used up. room: needed where windows have more than two numbers.
    """
    many = len(best)
    left, last = left[:many], len(rows) - many
    into[many:].zero_()
    if not last:
        into.copy_(left)
        return
    for shift in range(0, last, step):
        # Ones and noughts as floats: selecting by a mask takes PyTorch many times as long.
        hit = room[:many] if shift else into[:many]
        torch.eq(rows[shift : shift + many], best, out=hit)
        hit *= left
        left -= hit
        if shift:
            into[shift : shift + many] += hit
    into[last:] += left


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return a number for each dimension."""
    many = (value,) if isinstance(value, int) else tuple(value)
    return (int(many[0]), int(many[-1]))


@faster(F.max_pool2d, torch.max_pool2d)
def max_pool(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    """Run F.max_pool2d."""
    if input.dim() != 4 or input.device.type != "cpu" or not input.is_floating_point():
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(input):  # in a vmap of the caller's own
        return None
    window = pair(kernel_size)
    step = window if stride is None or stride == [] else pair(stride)
    known = pair(dilation) == (1, 1) and pair(padding) == (0, 0) and not (ceil_mode or return_indices)
    if (
        not known
        or min(*window, *step) < 1
        or window[0] * window[1] > LARGEST
        or step[0] * step[1] > SPARSEST
    ):
        return None
    if any(size < least for size, least in zip(input.shape[2:], window, strict=True)) or not input.numel():
        return None
    out: Tensor = _Pool.apply(input, window, step)  # type: ignore[no-untyped-call]
    return out
