"""The engine: per-image clipped gradients of any model that can be bounded, in one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.core.errors import InvalidRequest
from sfumato.training.engine import layers as _layers  # noqa: F401  (fills the table)
from sfumato.training.engine.clip import Clipped, Clipping
from sfumato.training.engine.grouping import Grouping, grouping_of
from sfumato.training.engine.parts import Part, part_of
from sfumato.training.engine.refuse import check_graph, check_model, check_ops
from sfumato.training.engine.tape import Source, Tape


class Engine:
    """Gradients of single units, clipped and summed, at nearly the cost of a plain backward.

    >>> model = nn.Linear(3, 2)
    >>> engine = Engine(model, clipping=Clipping("flat", 1.0))
    >>> out = engine.gradients(lambda: model(torch.randn(5, 3)).square().sum(1))
    >>> sorted(out.sum), out.units, bool((out.factors * out.norms <= 1).all())
    (['bias', 'weight'], 5, True)

    Guarantee: the sum is that of factor * gradient over units, each of an L2 norm of at most `clipping.sensitivity`
    (unit: image, or what `units` says; add-or-remove-one), for a model and a loss in which no image meets another.
    What cannot be bounded is refused by name. No noise is added here.

    Args:
        model: whose trainable parameters are to be trained; in any mode. Frozen ones cost nothing.
        clipping: what one unit may contribute.

    Raises:
        InvalidRequest: a part of the model that cannot be bounded per image, by name.

    Source: book-keeping after Bu, Wang, Zha and Karypis, "Differentially Private Optimization on Large Model at
    Small Cost" (2023); the kernels in layers/ say theirs.
    """

    def __init__(self, model: nn.Module, *, clipping: Clipping | None = None) -> None:
        self.model = model
        self.clipping = clipping or Clipping()
        check_model(model)

    def gradients(
        self,
        losses: Callable[[], Tensor],
        units: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        views: int = 1,
    ) -> Clipped:
        """Return the clipped sum of the units' gradients; `p.grad` is not touched.

        Args:
            losses: runs the model and returns (B,) losses, one per image.
            units: (B,) whole numbers: images with equal ones are one unit. None: each image (or picture) is its own.
            weights: (B,) public factors of the losses, as for images that only fill the batch.
            views: K views of each picture follow each other, and their losses are averaged.

        Raises:
            InvalidRequest: a parameter that is used where it cannot be bounded, by name; losses that are not (B,).
        """
        parts: dict[Source, Part] = {}
        grouping: list[Grouping] = []
        tape = self._tape(lambda source: self._ready(source, parts, grouping[0]))
        with tape, torch.enable_grad():
            found = losses()
        names = {id(p): name for name, p in self.model.named_parameters()}
        check_graph(found, tape, names)
        grouping.append(grouping_of(len(found), units, views))
        check_ops(tape, len(found))
        total = self._weighted(found, weights, views)
        if total.requires_grad:
            torch.autograd.grad(total.sum(), [tape.anchor], allow_unused=True)
        with torch.no_grad():
            self._finish(tape, parts, grouping[0])
            return self._clipped(parts, grouping[0])

    def _tape(self, ready: Callable[[Source], None]) -> Tape:
        sources, constants = [], {id(b) for b in self.model.buffers()}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                sources.append(Source(name, parameter))
            else:
                constants.add(id(parameter))
        if not sources:
            raise InvalidRequest("the model has no trainable parameter: nothing to train")
        self._sources = sources
        return Tape(sources, constants, ready)

    @staticmethod
    def _weighted(losses: Tensor, weights: Tensor | None, views: int) -> Tensor:
        if weights is not None:
            if weights.shape != losses.shape:
                raise InvalidRequest(
                    f"weights must be {tuple(losses.shape)} like the losses, got {tuple(weights.shape)}"
                )
            losses = losses * weights
        return losses / views if views > 1 else losses

    @staticmethod
    def _ready(source: Source, parts: dict[Source, Part], grouping: Grouping) -> None:
        # Computed tensors pass on to their parents, after the backward.
        if not source.parents:
            parts[source] = part_of(source, grouping)

    def _finish(self, tape: Tape, parts: dict[Source, Part], grouping: Grouping) -> None:
        """Take what was used in the forward pass and not reached by the backward, and computed tensors."""
        from sfumato.training.engine.computed import pass_on

        for source in reversed(tape.computed):
            pass_on(tape, source)
        for source in self._sources:
            if source.terms:
                parts[source] = part_of(source, grouping)

    def _clipped(self, parts: dict[Source, Part], grouping: Grouping) -> Clipped:
        clipping = self.clipping
        by_layer: dict[str, list[Source]] = {}
        for source in self._sources:
            layer = source.name.rpartition(".")[0] if clipping.kind == "per-layer" else ""
            by_layer.setdefault(layer, []).append(source)
        device, dtype = self._sources[0].tensor.device, torch.promote_types(
            self._sources[0].tensor.dtype, torch.float32
        )
        squares = torch.zeros(len(by_layer), grouping.units, device=device, dtype=dtype)
        for row, members in zip(squares, by_layer.values(), strict=True):
            for source in members:
                if source in parts:
                    row += parts[source].squares
        factors = clipping.factors(squares, len(by_layer))
        bad = ~squares.isfinite().all(0)
        factors = factors.masked_fill(bad, 0)
        sums: dict[str, Tensor] = {}
        spoiled = bool(bad.any())
        for row, members in zip(factors, by_layer.values(), strict=True):
            for source in members:
                part = parts.pop(source, None)
                sums[source.name] = (
                    torch.zeros_like(source.tensor, requires_grad=False)
                    if part is None
                    else part.total(row, bad if spoiled else None).view(source.tensor.shape)
                )
        return Clipped(
            sum={source.name: sums[source.name].to(source.tensor.dtype) for source in self._sources},
            norms=squares.sum(0).clamp_min(0).sqrt(),
            factors=factors.amin(0),
            units=grouping.units,
            layers=dict(zip(by_layer, factors, strict=True)) if clipping.kind == "per-layer" else {},
        )


