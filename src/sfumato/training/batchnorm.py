"""Taking BatchNorm out of a model: by GroupNorm, or by freezing what public pretraining gave it.

BatchNorm normalises each image by the others of its batch, so no per-image gradient exists; and it keeps
running statistics of private images, without noise, in what is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from sfumato.core.errors import InvalidRequest, UnknownName

WAYS = ("group", "freeze")
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
#: A group of one or two channels has little to normalise by: of one number, nothing would be left.
CHANNELS = 4


class FrozenBatchNorm(_BatchNorm):
    """BatchNorm whose statistics are constants: in eval mode for good. Scale and shift can be trained.

    It has the same parameters and buffers, so its weights fit an ordinary BatchNorm and the other way round.
    """

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay in eval mode."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the constants: the same function of each image, whatever the batch."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions will do."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """One layer that was changed.

    Args:
        name: where it is in the model.
        before, after: what it was, and what it is now.
        why: in a sentence.
    """

    name: str
    before: str
    after: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} -> {self.after}; {self.why}"


def replace_batchnorm(model: nn.Module, with_: str = "group", *, groups: int = 32) -> list[Replaced]:
    """Take every layer that learns statistics of a batch out of a model, in place.

    >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    >>> print(*replace_batchnorm(model))  # doctest: +ELLIPSIS
    1: BatchNorm2d(16) -> GroupNorm(4, 16); normalises each image by itself...

    Guarantee (tested):
        Afterwards no layer of a kind that `training.coupling.layers` knows couples images. Functional batch
        norm is left to `training.coupling.probe`.

    Args:
        with_: "group": GroupNorm, which keeps scale and shift and drops the statistics: for training from
            scratch. "freeze": keeps the statistics as constants: for models that were pretrained on public
            data, since the constants are released as they are.
        groups: at most so many, and at least 4 channels in each.

    Returns:
        What was done, layer by layer, and why.

    Raises:
        UnknownName: `with_` is neither.
        InvalidRequest: a layer without a size, without statistics to freeze, or of a kind of its own; the
            model is as it was then.
    """
    if with_ not in WAYS:
        raise UnknownName("way to replace BatchNorm", with_, WAYS)
    if isinstance(model, _BatchNorm):
        raise InvalidRequest("the model itself is a BatchNorm: put it into a module, such as nn.Sequential")
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm | _InstanceNorm)]
    found = [(n, m) for n, m in found if not isinstance(m, FrozenBatchNorm)]
    change = _grouped if with_ == "group" else _frozen
    planned: list[tuple[str, nn.Module, Callable[[], nn.Module], str]] = []
    for name, module in found:
        if isinstance(module, _InstanceNorm):
            if module.track_running_stats:
                why = "kept running statistics of the images; each image's own are used now"
                planned.append((name, module, lambda one=module: _unkept(one), why))  # type: ignore[misc]
            continue
        make, why = change(name, module, groups)
        planned.append((name, module, make, why))
    return [_put(model, *one) for one in planned]


def _grouped(name: str, module: _BatchNorm, groups: int) -> tuple[Callable[[], nn.Module], str]:
    """Return what makes a GroupNorm of a BatchNorm, and the reason."""
    _sized(name, module)
    if type(module) not in PLAIN:
        raise InvalidRequest(
            f"{name} is a {type(module).__name__}, a BatchNorm that may do more than normalise: replace it "
            "by hand, or freeze it with with_='freeze'"
        )

    def make() -> nn.Module:
        channels = module.num_features
        most = min(groups, max(1, channels // CHANNELS))
        count = next(n for n in range(most, 0, -1) if channels % n == 0)
        new = nn.GroupNorm(count, channels, eps=module.eps, affine=module.affine)
        if module.affine:
            new.weight, new.bias = module.weight, module.bias  # the same: an optimiser may hold them
            new = new.to(module.weight.device, module.weight.dtype)
        return new.train(module.training)

    return make, "normalises each image by itself; statistics of a pretraining, if any, were dropped"


def _frozen(name: str, module: _BatchNorm, groups: int) -> tuple[Callable[[], nn.Module], str]:
    """Return what freezes a BatchNorm where it stands, and the reason."""
    _sized(name, module)
    if module.running_mean is None or module.running_var is None:
        raise InvalidRequest(f"{name} keeps no statistics that could be frozen: use with_='group'")
    fresh = not module.running_mean.any() and bool((module.running_var == 1).all())

    def make() -> nn.Module:
        plain = type(module) in PLAIN
        module.__class__ = FrozenBatchNorm if plain else _frozen_kind(type(module))
        return module.eval()

    why = "its statistics are constants now, so they must come from public data"
    return make, why + ("; they are those of a new layer, 0 and 1, and do nothing" if fresh else "")


def _frozen_kind(kind: type[_BatchNorm]) -> Any:
    """Return a subclass, of a BatchNorm that does more than normalise, that stays in eval mode."""

    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        return nn.Module.train(self, False)

    return type(f"Frozen{kind.__name__}", (kind,), {"train": train, "__module__": kind.__module__})


def _unkept(module: _InstanceNorm) -> nn.Module:
    """Return an InstanceNorm that keeps nothing."""
    module.track_running_stats = False
    module.running_mean = module.running_var = module.num_batches_tracked = None
    return module


def _sized(name: str, module: _BatchNorm) -> None:
    parts = (module.weight, module.running_mean)
    if any(isinstance(one, UninitializedParameter | UninitializedBuffer) for one in parts):
        raise InvalidRequest(f"{name} has no size yet: run one batch of public or random pictures first")


def _put(model: nn.Module, name: str, module: nn.Module, make: Callable[[], nn.Module], why: str) -> Replaced:
    """Put a new layer wherever the old one is: it may be used in several places."""
    before = _said(module)
    with torch.no_grad():
        new = make()
    for parent in model.modules():
        for key, child in parent.named_children():
            if child is module:
                setattr(parent, key, new)
    return Replaced(name, before, _said(new), why)


def _said(module: nn.Module) -> str:
    if isinstance(module, nn.GroupNorm):
        return f"GroupNorm({module.num_groups}, {module.num_channels})"
    return f"{type(module).__name__}({getattr(module, 'num_features', '')})"
