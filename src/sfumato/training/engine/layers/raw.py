"""Raw parameters: broadcast over the batch, expanded to it, or met by any other operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from sfumato.training.engine.record import Op
from sfumato.training.engine.tape import Source, Tape, name_of
from sfumato.training.engine.terms import Kept

#: Elementwise operations: a parameter meets each image's numbers by broadcasting.
ELEMENTWISE: frozenset[Callable[..., Any]] = frozenset(
    found
    for module in (torch, Tensor)
    for name in (
        *("add", "sub", "mul", "div", "true_divide", "rsub", "pow", "maximum", "minimum", "where"),
        *(
            "add_",
            "sub_",
            "mul_",
            "div_",
            "__add__",
            "__radd__",
            "__sub__",
            "__rsub__",
            "__mul__",
            "__rmul__",
        ),
        *("__truediv__", "__rtruediv__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__pow__"),
        *("__rpow__", "float_power", "lerp", "addcmul", "clamp_min", "clamp_max", "hypot", "atan2"),
    )
    if (found := getattr(module, name, None)) is not None
)

EXPANDS: frozenset[Callable[..., Any]] = frozenset(
    found
    for module in (torch, Tensor)
    for name in ("expand", "repeat", "expand_as", "tile", "broadcast_to", "repeat_interleave")
    if (found := getattr(module, name, None)) is not None
)
JOINS = (torch.cat, torch.concat, torch.concatenate)


class ExpandOp(Op):
    """A parameter as each image sees it: (B, ...), equal rows, a gradient for each."""

    def __init__(self, tape: Tape, source: Source, rows: Tensor) -> None:
        self.tape, self.batch, self.rows = tape, rows.shape[0], rows
        self.of = source
        self.sources = tape.use(source)

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.rows, ()

    @override
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        self.tape.take(self.of, Kept(self.of.like(g).reshape(self.batch, -1)))
        return None


def per_image(tape: Tape, source: Source, batch: int, dims: int) -> Tensor:
    """Return a source as (B, ...) of so many dimensions, dim 0 being the batch's.

    Raises:
        InvalidRequest: the parameter has a dim 0 of its own where the batch's is.
    """
    value = source.tensor.detach()
    if value.dim() > dims or (value.dim() == dims and dims and value.shape[0] != 1):
        raise tape.refuse(
            [source],
            f"its shape {tuple(value.shape)} meets the batch's own dimension, so no image's part can be told "
            "apart: give it a leading 1, or freeze it",
        )
    value = value if value.dim() == dims else value.view(*[1] * (dims - value.dim()), *value.shape)
    return ExpandOp(tape, source, value.expand(batch, *value.shape[1:]))()


def expanded(
    tape: Tape, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Tensor | None:
    """Record a parameter (1, ...) that is expanded to a batch, as a class token is; None: it is not."""
    if func not in EXPANDS or not isinstance(args[0], Tensor):
        return None
    source = tape.source(args[0])
    if source is None:
        return None
    out: Tensor = func(args[0].detach(), *args[1:], **kwargs)
    value = source.tensor
    if out.dim() < 2 or out.shape[0] == 1 or (out.dim() == value.dim() and value.shape[0] != 1):
        return None
    inner = value.shape if value.dim() < out.dim() else value.shape[1:]
    if out.shape[1:].numel() != inner.numel():
        return None
    return ExpandOp(tape, source, out)()


def general(tape: Tape, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Record an operation that has no way of its own: by broadcasting, or image by image through vmap."""
    found, batch = tape.tensors(args, kwargs)
    if func in ELEMENTWISE:
        return elementwise(tape, func, args, kwargs, batch)
    if func in JOINS:
        return joined(tape, func, args, kwargs, batch)
    return mapped(tape, func, args, kwargs, found, batch)


def elementwise(
    tape: Tape, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], batch: list[Tensor]
) -> Any:
    """Record broadcasting."""
    dims = max(tensor.dim() for tensor in batch)
    size = next(tensor.shape[0] for tensor in batch if tensor.dim() == dims) if dims else 0
    new, named = swap(tape, args, kwargs, lambda source: per_image(tape, source, size, dims))
    return func(*new, **named)


def joined(
    tape: Tape, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], batch: list[Tensor]
) -> Any:
    """Record a concatenation with (1, ...) parameters, which a batch of one needs no expanding for."""
    size, dims = batch[0].shape[0], batch[0].dim()
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    if dim % dims == 0:
        found, _ = tape.tensors(args, kwargs)
        raise tape.refuse(found, "it is joined to the batch along the batch's own dimension, as if an image")
    new, named = swap(tape, args, kwargs, lambda source: per_image(tape, source, size, dims))
    return func(*new, **named)


def mapped(
    tape: Tape,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    found: list[Source],
    batch: list[Tensor],
) -> Any:
    """Record any operation whose first dimension is the batch's, image by image through vmap."""
    sizes = {tensor.shape[0] if tensor.dim() else -1 for tensor in batch}
    if len(sizes) != 1 or -1 in sizes:
        raise tape.refuse(
            found, f"{name_of(func)} mixes it with tensors of {sizes} rows; the batch must be dim 0 of each"
        )
    (size,) = sizes
    inputs: list[Tensor] = list(batch)
    names = {id(tensor): position for position, tensor in enumerate(batch)}
    for source in {id(source): source for source in found}.values():
        names[id(source.tensor)] = len(inputs)
        rows = source.tensor.detach()
        inputs.append(ExpandOp(tape, source, rows.expand(size, *rows.shape))())

    def one(*parts: Tensor) -> Any:
        def put(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(put(part) for part in value)
            place = names.get(id(value)) if isinstance(value, Tensor) else None
            if place is None:
                return value
            return parts[place].unsqueeze(0) if place < len(batch) else parts[place]

        out = func(*[put(value) for value in args], **{name: put(value) for name, value in kwargs.items()})
        if not isinstance(out, Tensor) or not out.dim() or out.shape[0] != 1:
            raise RuntimeError("its result has no row for the image")
        return out.squeeze(0)

    try:
        return torch.vmap(one)(*inputs)
    except Exception as error:
        raise tape.refuse(
            found,
            f"{name_of(func)} cannot be bounded per image ({str(error).splitlines()[0]}); freeze the "
            "parameter, or write the operation by layers that are known (docs: private training)",
        ) from error


def swap(
    tape: Tape, args: Sequence[Any], kwargs: dict[str, Any], new: Callable[[Source], Tensor]
) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments with each source replaced."""

    def put(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(put(part) for part in value)
        source = tape.source(value) if isinstance(value, Tensor) else None
        return new(source) if source else value

    return [put(value) for value in args], {name: put(value) for name, value in kwargs.items()}
