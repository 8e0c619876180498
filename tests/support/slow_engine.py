"""The oracle: one backward pass per image, in a loop, with the interface of sfumato.training.engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Sums:
    sum: dict[str, torch.Tensor]


class SlowEngine:
    """Flat clipping to `bound`, a little below as the real one does."""

    def __init__(self, model: torch.nn.Module, bound: float = 1.0) -> None:
        self.model, self.limit = model, bound * (1 - 2.0**-10)
        self.calls: list[int] = []

    def gradients(
        self, losses: Callable[[], torch.Tensor], units: torch.Tensor | None = None, *, views: int = 1
    ) -> Sums:
        named = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        values = losses() / views
        self.calls.append(len(values))
        owner = torch.arange(len(values)) // views if units is None else units
        rows: dict[int, torch.Tensor] = {}
        for index, value in enumerate(values):
            grads = torch.autograd.grad(value, list(named.values()), retain_graph=True)
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            rows[int(owner[index])] = rows.get(int(owner[index]), torch.zeros_like(flat)) + flat
        total = sum(row * min(1.0, self.limit / float(row.norm())) for row in rows.values())
        split = torch.split(torch.as_tensor(total), [p.numel() for p in named.values()])
        return Sums({n: part.reshape(p.shape) for (n, p), part in zip(named.items(), split, strict=True)})
