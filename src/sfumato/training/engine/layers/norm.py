"""Norms over one image: group, layer, instance and RMS norm, and batch norm whose statistics are frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from typing_extensions import override

from sfumato.core.errors import InvalidRequest
from sfumato.training.engine.record import Op
from sfumato.training.engine.table import WATCHED, handles
from sfumato.training.engine.tape import Tape
from sfumato.training.engine.terms import Kept

#: Bytes that stay in a core's cache.
CACHE = 2**20


class NormOp(Op):
    """A norm with a weight and a bias that may be trained."""

    def __init__(self, tape: Tape, input: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        self.tape, self.batch = tape, input.shape[0]
        self.weight = None if weight is None else weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.sources = tape.use(tape.source(weight), tape.source(bias))

    def wide(self, x: Tensor) -> Tensor:
        """Return the input in the parameters' type: norms are never taken in half precision."""
        for value in (self.weight, self.bias):
            if value is not None and x.dtype != value.dtype:
                return x.to(value.dtype)
        return x

    def hand(self, of_weight: Tensor, of_bias: Tensor) -> None:
        """Hand over per-image gradients (B, numbers)."""
        for source, rows in zip(self.sources, (of_weight, of_bias), strict=True):
            if source:
                self.tape.take(source, Kept(source.like(rows)))


class GroupOp(NormOp):
    """Group norm. Backward with the images as further groups gives each image's sums in the same pass."""

    def __init__(
        self, tape: Tape, input: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> None:
        super().__init__(tape, input, weight, bias)
        self.groups, self.eps = groups, eps

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.wide(inputs[0]).contiguous()
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2:].numel()
        y, mean, scale = torch.native_group_norm(
            x, self.weight, self.bias, images, channels, pixels, self.groups, self.eps
        )
        return y, (x, mean, scale)

    @override
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        x, mean, scale = saved
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2:].numel()
        dx, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            g.to(x.dtype).contiguous().view(1, -1, pixels),
            x.view(1, -1, pixels),
            mean.view(1, -1),
            scale.view(1, -1),
            None if self.weight is None else self.weight.repeat(images),
            1,
            images * channels,
            pixels,
            images * self.groups,
            (needed, True, True),
        )
        self.hand(of_weight.view(images, channels), of_bias.view(images, channels))
        return dx.view(x.shape) if needed else None


class FrozenOp(NormOp):
    """Batch norm by statistics that no image moves: a scale and a shift per channel."""

    def __init__(
        self,
        tape: Tape,
        input: Tensor,
        statistics: tuple[Tensor, Tensor],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> None:
        super().__init__(tape, input, weight, bias)
        self.mean, self.variance = statistics
        self.eps = eps

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.wide(inputs[0]).contiguous()
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.eps), (x,)

    @override
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        (x,) = saved
        g = g.to(x.dtype).contiguous()
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2:].numel()
        scale = (self.variance + self.eps).rsqrt()
        # Sums of g * x and of g, by the kernel of group norm with a mean of 0 and a deviation of 1.
        nothing, one = x.new_zeros(1, images * channels), x.new_ones(1, images * channels)
        _, products, sums = torch.ops.aten.native_group_norm_backward(
            g.view(1, -1, pixels),
            x.view(1, -1, pixels),
            nothing,
            one,
            one.flatten(),
            1,
            images * channels,
            pixels,
            images * channels,
            (False, True, True),
        )
        sums = sums.view(images, channels)
        self.hand((products.view(images, channels) - sums * self.mean) * scale, sums)
        if not needed:
            return None
        full = scale if self.weight is None else scale * self.weight
        return g * full.view(-1, *[1] * (x.dim() - 2))


class LayerOp(NormOp):
    """Layer norm over the last dimensions."""

    def __init__(
        self,
        tape: Tape,
        input: Tensor,
        shape: Sequence[int],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> None:
        super().__init__(tape, input, weight, bias)
        self.shape, self.eps = list(shape), eps

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.wide(inputs[0]).contiguous()
        y, mean, scale = torch.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return y, (x, mean, scale)

    def again(self) -> Callable[[Tensor], Tensor]:
        """Return what computes the output from the input."""
        shape, weight, bias, eps = self.shape, self.weight, self.bias, self.eps
        return lambda x: torch.native_layer_norm(x, shape, weight, bias, eps)[0]

    @override
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        x, mean, scale = saved
        g = g.to(x.dtype).contiguous()
        rows = torch.Size(self.shape).numel()
        of_bias = g.view(self.batch, -1, rows).sum(1)
        of_weight = of_bias
        if self.sources[0]:
            of_weight = torch.empty_like(of_bias)
            step = max(1, CACHE // max(1, x[:1].numel() * x.element_size()))
            for first in range(0, self.batch, step):
                part = slice(first, first + step)
                product = (x[part] - mean[part]).mul_(scale[part]).mul_(g[part])
                torch.sum(product.view(len(product), -1, rows), 1, out=of_weight[part])
        self.hand(of_weight, of_bias)
        if not needed:
            return None
        dx: Tensor = torch.ops.aten.native_layer_norm_backward(
            g, x, self.shape, mean, scale, self.weight, self.bias, (True, False, False)
        )[0]
        return dx


class RootOp(NormOp):
    """RMS norm over the last dimensions."""

    def __init__(
        self, tape: Tape, input: Tensor, shape: Sequence[int], weight: Tensor, eps: float | None
    ) -> None:
        super().__init__(tape, input, weight, None)
        self.shape = list(shape)
        self.eps = torch.finfo(input.dtype).eps if eps is None else eps

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert self.weight is not None
        x = self.wide(inputs[0])
        scale = (x.square().mean(self.over, keepdim=True) + self.eps).rsqrt()
        return (x * scale).mul_(self.weight), (x, scale)

    @property
    def over(self) -> tuple[int, ...]:
        """The dimensions that are normalised."""
        return tuple(range(-len(self.shape), 0))

    @override
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        assert self.weight is not None
        x, scale = saved
        y = x * scale
        g = g.to(x.dtype)
        product = y * g
        rows = product.reshape(self.batch, -1, self.weight.numel()).sum(1)
        self.hand(rows, rows)
        if not needed:
            return None
        mean = product.mul_(self.weight).mean(self.over, keepdim=True)
        return (g * self.weight).sub_(y.mul_(mean)).mul_(scale)


@handles(F.group_norm, torch.group_norm)
def group_norm(
    tape: Tape,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor | None:
    """Record F.group_norm."""
    if input.dim() < 2 or not tape.fixed(weight, bias):
        return None
    return GroupOp(tape, input, num_groups, weight, bias, eps)(input)


@handles(F.layer_norm, torch.layer_norm)
def layer_norm(
    tape: Tape,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor | None:
    """Record F.layer_norm."""
    shape = list(normalized_shape)
    if input.dim() <= len(shape) or not tape.fixed(weight, bias):
        return None
    op = LayerOp(tape, input, shape, weight, bias, eps)
    out = op(input)
    if input.is_contiguous() and op.wide(input) is input:
        tape.recipes.enter(out, input, op.again())
    return out


@handles(F.rms_norm, torch.rms_norm)
def rms_norm(
    tape: Tape,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor | None:
    """Record F.rms_norm."""
    shape = list(normalized_shape)
    if input.dim() <= len(shape) or weight is None or not tape.fixed(weight):
        return None
    return RootOp(tape, input, shape, weight, eps)(input)


@handles(F.instance_norm, torch.instance_norm)
def instance_norm(
    tape: Tape,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    *rest: float,
    **named: float,
) -> Tensor | None:
    """Record F.instance_norm with the statistics of the image itself."""
    eps = epsilon(rest, named)
    if input.dim() < 3 or not tape.fixed(weight, bias):
        return None
    found = [source for source in (tape.source(weight), tape.source(bias)) if source]
    if not use_input_stats and running_mean is not None and running_var is not None:
        return FrozenOp(tape, input, (running_mean, running_var), weight, bias, eps)(input)
    if running_mean is not None:
        raise tape.refuse(
            found,
            "its instance norm keeps running statistics of the images, which would leave without noise: set "
            "track_running_stats=False",
        )
    # A norm over one channel of one image: group norm with a group per channel.
    return GroupOp(tape, input, input.shape[1], weight, bias, eps)(input)


@handles(F.batch_norm, torch.batch_norm)
def batch_norm(
    tape: Tape,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *rest: float,
    **named: float,
) -> Tensor | None:
    """Record F.batch_norm with frozen statistics; with those of the batch it is refused."""
    eps = epsilon(rest, named)
    found = [source for source in (tape.source(weight), tape.source(bias)) if source]
    if training or running_mean is None or running_var is None:
        raise tape.refuse(
            found,
            "its batch norm takes the statistics of the batch, so that each image changes all gradients: "
            "freeze or replace it",
        )
    if not tape.fixed(weight, bias):
        return None
    return FrozenOp(tape, input, (running_mean, running_var), weight, bias, eps)(input)


def epsilon(rest: Sequence[float], named: Mapping[str, float]) -> float:
    """Return eps out of (momentum, eps, ...), given by place or by name."""
    return named.get("eps", rest[1] if len(rest) > 1 else 1e-5)


def watch_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *_: object,
    **__: object,
) -> None:
    """Refuse batch statistics where no trained parameter is near: they mix images all the same."""
    if training or running_mean is None or running_var is None:
        raise InvalidRequest(
            "a batch norm takes the statistics of the batch, so that each image changes all gradients: "
            "freeze or replace it (sfumato.training.batchnorm)"
        )


WATCHED[F.batch_norm] = watch_batch_norm
