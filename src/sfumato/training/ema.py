"""An average of the weights over steps: post-processing of what is private already, so it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from sfumato.core.errors import InvalidRequest


class EMA:
    """Weights averaged with exponentially falling parts, over trainable parameters; the rest is the model's.

    >>> model = torch.nn.Linear(2, 1)
    >>> ema = EMA(model, 0.99)
    >>> ema.update(model)
    >>> sorted(ema.weights)
    ['bias', 'weight']

    Guarantee:
        A function of the noisy steps alone: it is as private as the last of them.

    Args:
        decay: part that is kept in a step, 0..1. At step t no more than (1 + t) / (10 + t) is kept, so that
            the first weights, which are chance, are soon forgotten.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        if isinstance(decay, bool) or not 0 <= decay < 1:
            raise InvalidRequest(f"the decay of an average must lie in 0..1, below 1, got {decay!r}")
        self.decay, self.steps = float(decay), 0
        self.weights = {name: value.detach().clone() for name, value in _trained(model)}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take a step's weights in."""
        self.steps += 1
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in _trained(model):
            self.weights[name].lerp_(value.detach().to(self.weights[name]), 1 - kept)

    def load(self, weights: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from a checkpoint."""
        if set(weights) != set(self.weights):
            raise InvalidRequest("the checkpoint's average is of another model")
        self.steps = steps
        for name, value in weights.items():
            self.weights[name].copy_(value)

    @contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[None]:
        """Put the averages into the model for a while: to evaluate it, or to release it."""
        before = {name: value.detach().clone() for name, value in _trained(model)}
        _put(model, self.weights)
        try:
            yield
        finally:
            _put(model, before)


def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


@torch.no_grad()
def _put(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    for name, value in _trained(model):
        value.copy_(weights[name])
