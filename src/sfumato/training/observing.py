"""One forward and backward pass, watched: what of it belongs to which image, as short fingerprints.

Fingerprints (a norm and two sums, in float64) stand for tensors, since a probe of ResNet-18 would otherwise
keep gigabytes. Equal tensors have equal fingerprints; different ones agree only by an accident of rounding.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.core.errors import InvalidRequest
from sfumato.training.changes import mapped, tensors

Losses = Callable[[Any], Tensor]

#: What every module has; anything else in its `__dict__` is its author's.
_OWN = set(nn.Module().__dict__)


@dataclass(slots=True)
class Seen:
    """What one pass showed.

    Args:
        losses: (images,) float64.
        rows: name -> (images, 3) fingerprints of what has one row per image, in order of appearance.
        gradients: left-out image -> (parameters, 3), of the weighted sum of the other images' losses.
        memory: name -> (3,) fingerprints of buffers and of tensors kept in attributes, after the pass.
    """

    losses: Tensor
    rows: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[int, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)


class Observer:
    """Runs a model's losses again and again under the same conditions.

    Args:
        model: its buffers are put back after each pass; parameters and their `.grad` are never touched.
        losses: batch -> (images,) losses, each of one image.
        images: how many a batch has, unless a run says otherwise.
    """

    def __init__(self, model: nn.Module, losses: Losses, *, images: int) -> None:
        self.model, self.losses, self.images = model, losses, images
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
        self._seen = Seen(torch.zeros(0))
        self._images, self._watching = 0, False

    def run(
        self,
        batch: Any,
        *,
        weights: Sequence[float] = (),
        leave_out: Sequence[int] = (),
        backward: bool = True,
        seed: int = 7,
        images: int = 0,
    ) -> Seen:
        """Run once and tell what was seen.

        Args:
            weights: of the images, in the sums whose gradients are taken.
            leave_out: images; for each, the gradient of the weighted sum of the others (-1: of all).
            backward: whether gradients are taken at all.
            seed: of torch's generators, for this pass only.
            images: how many this batch has; 0: as ever.

        Raises:
            InvalidRequest: the losses are not one number per image.
        """
        self._images = images or self.images
        self._seen = seen = Seen(torch.zeros(0))
        backward = backward and bool(self.parameters)
        batch = mapped(batch, lambda one: _leaf(one, backward))
        with self._hooked(), _same_randomness(batch, seed), torch.set_grad_enabled(backward):
            self._watching = True
            losses = per_image(self.losses(batch), self._images)
            seen.losses = losses.detach().double().cpu()
            if backward and losses.requires_grad:
                self._backward(losses, batch, weights, leave_out)
            self._watching = False
        seen.memory = {name: _whole(value) for name, value in remembered(self.model)}
        self._restore()
        return seen

    def _backward(
        self, losses: Tensor, batch: Any, weights: Sequence[float], leave_out: Sequence[int]
    ) -> None:
        inputs = [one for one in tensors(batch) if one.requires_grad]
        found = torch.autograd.grad(
            losses.sum(), [*inputs, *self.parameters], retain_graph=bool(leave_out), allow_unused=True
        )
        for index, gradient in enumerate(found[: len(inputs)]):
            if gradient is not None:
                self._note(f"gradient of input {index + 1}", gradient)
        self._watching = False
        scale = losses.new_tensor(list(weights)) if leave_out else losses
        for left in leave_out:
            keep = [j for j in range(self._images) if j != left]
            last = left == leave_out[-1]
            each = torch.autograd.grad(
                (losses * scale)[keep].sum(), self.parameters, retain_graph=not last, allow_unused=True
            )
            self._seen.gradients[left] = torch.stack(
                [_whole(one) if one is not None else torch.zeros(3, dtype=torch.float64) for one in each]
            )

    @contextlib.contextmanager
    def _hooked(self) -> Iterator[None]:
        handles = [
            module.register_forward_hook(self._hook(name or "the model", module))
            for name, module in self.model.named_modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, module: nn.Module) -> Callable[..., None]:
        label = f"{name} ({type(module).__name__})"

        def after(_: nn.Module, given: Any, got: Any) -> None:
            if not self._watching:
                return
            for one in tensors(given):
                self._note(f"input of {label}", one)
            for one in tensors(got):
                self._note(f"output of {label}", one)
                if one.requires_grad:
                    one.register_hook(back)  # type: ignore[no-untyped-call]

        def back(gradient: Tensor) -> None:
            self._note(f"gradient at {label}", gradient)

        return after

    def _note(self, name: str, value: Tensor) -> None:
        """Keep the fingerprints of what has one row per image; a second one of a name gets a number."""
        if not self._watching or value.ndim == 0 or len(value) != self._images or value.numel() == 0:
            return
        key, count = name, 1
        while key in self._seen.rows:
            count += 1
            key = f"{name}, call {count}"
        self._seen.rows[key] = _rows(value.detach())

    def _restore(self) -> None:
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                if name in self._buffers and self._buffers[name].shape == value.shape:
                    value.copy_(self._buffers[name])


def per_image(losses: Any, images: int) -> Tensor:
    """Check that losses are one number per image.

    Raises:
        InvalidRequest: they are not.
    """
    if isinstance(losses, Tensor) and losses.shape == (images,):
        return losses
    got = f"a tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
    raise InvalidRequest(
        f"the loss must give one value per image, ({images},) for {images} images; got {got}. Use "
        "reduction='none', and sum what belongs to one image."
    )


def remembered(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over a model's buffers, and over the tensors that its modules keep in other attributes."""
    for name, value in model.named_buffers():
        yield f"buffer {name}", value
    for name, module in model.named_modules():
        for key, kept in module.__dict__.items():
            if key not in _OWN:
                where = f"attribute {name}.{key}".replace(" .", " ")
                found = tensors(list(kept) if isinstance(kept, deque) else kept)
                yield from ((where, one) for one in found if not isinstance(one, nn.Parameter))


def _leaf(one: Tensor, backward: bool) -> Tensor:
    copy = one.detach().clone()
    return copy.requires_grad_() if backward and copy.is_floating_point() else copy


@contextlib.contextmanager
def _same_randomness(batch: Any, seed: int) -> Iterator[None]:
    """Fix torch's generators for a while: dropout then drops the same whatever the images are."""
    devices = sorted({one.device.index for one in tensors(batch) if one.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _rows(value: Tensor) -> Tensor:
    """Fingerprints of each row: (images, 3)."""
    value = torch.view_as_real(value) if value.is_complex() else value
    flat = value.flatten(1) if value.ndim > 1 else value.unsqueeze(1)
    flat = flat if flat.is_floating_point() else flat.double()
    wide = torch.float64
    norm = torch.linalg.vector_norm(flat, dim=1, dtype=wide)
    return torch.stack([norm, flat.sum(1, dtype=wide), flat[:, ::2].sum(1, dtype=wide)], 1).cpu()


def _whole(value: Tensor) -> Tensor:
    """Fingerprint of a whole tensor: (3,)."""
    return _rows(value.detach().reshape(1, -1)).squeeze(0)


def differs(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Return the names under which two mappings hold different fingerprints."""
    return [
        name
        for name in [*one, *(n for n in other if n not in one)]
        if name not in one or name not in other or not same(one[name], other[name])
    ]


def same(one: Tensor, other: Tensor, relative: float = 0.0) -> bool:
    """Return whether two are equal, to within a part of the largest entry; NaN equals NaN."""
    if one.shape != other.shape:
        return False
    if relative == 0:
        return bool(((one == other) | (one.isnan() & other.isnan())).all())
    scale = float(one.abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0, atol=relative * scale, equal_nan=True)
