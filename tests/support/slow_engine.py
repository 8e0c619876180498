"""The oracle: one backward pass per image, in a loop, with the interface of sfumato.training.engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

CLIP_SLACK = 1 - 2.0**-10


@dataclass(frozen=True)
class Clipping:
    kind: str = "flat"
    norm: float = 1.0

    @property
    def sensitivity(self) -> float:
        return self.norm


@dataclass
class Clipped:
    sum: dict[str, torch.Tensor]
    norms: torch.Tensor
    factors: torch.Tensor
    units: int


class Engine:
    def __init__(self, model: torch.nn.Module, clipping: Clipping | None = None) -> None:
        self.model, self.clipping = model, clipping or Clipping()

    def gradients(
        self,
        losses: Callable[[], torch.Tensor],
        units: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        views: int = 1,
    ) -> Clipped:
        named = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        values = losses()
        values = values.reshape(-1, views).mean(1)
        owner = torch.arange(len(values)) if units is None else units
        rows: dict[int, list[torch.Tensor]] = {}
        for index, value in enumerate(values):
            grads = torch.autograd.grad(value, list(named.values()), retain_graph=True)
            rows.setdefault(int(owner[index]), []).append(torch.cat([g.reshape(-1) for g in grads]))
        count = max(rows) + 1 if rows else 0
        total = torch.zeros(sum(p.numel() for p in named.values()))
        norms, factors = torch.zeros(count), torch.zeros(count)
        for unit, parts in rows.items():
            grad = torch.stack(parts).sum(0)
            norms[unit] = grad.norm()
            limit = self.clipping.norm * CLIP_SLACK
            if self.clipping.kind == "automatic":
                factors[unit] = limit / (norms[unit] + 0.01)
            else:
                factors[unit] = min(1.0, limit / max(float(norms[unit]), 1e-30))
            if torch.isfinite(grad).all():
                total += factors[unit] * grad
            else:
                factors[unit] = 0
        split = torch.split(total, [p.numel() for p in named.values()])
        sums = {n: part.reshape(p.shape) for (n, p), part in zip(named.items(), split, strict=True)}
        return Clipped(sums, norms, factors, count)
