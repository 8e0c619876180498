"""The engine: per-image clipped gradients of any model that can be bounded, in one backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sfumato.core.errors import InvalidRequest
from sfumato.training.engine import check
from sfumato.training.engine import layers as _layers  # noqa: F401  (fills the table)
from sfumato.training.engine.clip import Clipped, Clipping
from sfumato.training.engine.computed import pass_on
from sfumato.training.engine.grouping import Grouping, grouping_of
from sfumato.training.engine.parts import Part, part_of
from sfumato.training.engine.refuse import check_graph, check_model, check_ops
from sfumato.training.engine.tape import Source, Tape
from sfumato.training.memory import hand_back


class Engine:
    """Gradients of single units, clipped and summed, at nearly the cost of a plain backward.

    >>> model = nn.Linear(3, 2)
    >>> engine = Engine(model, clipping=Clipping("flat", 1.0))
    >>> out = engine.gradients(lambda: model(torch.randn(5, 3)).square().sum(1))
    >>> sorted(out.sum), out.units, bool((out.factors * out.norms <= 1).all())
    (['bias', 'weight'], 5, True)

    Guarantee: the sum is that of factor * gradient over units, each of an L2 norm of at most
    `clipping.sensitivity` (unit: image, or what `units` says; add-or-remove-one), for a model and a loss in
    which no image meets another. What cannot be bounded is refused by name. No noise is added here.

    Args:
        model: whose trainable parameters are to be trained; in any mode. Frozen ones cost nothing.
        clipping: what one unit may contribute.
        verify: compare one image of the first batch with plain autograd, and refuse a model or loss that
            differs.

    Raises:
        InvalidRequest: a part of the model that cannot be bounded per image, by name.

    Source: book-keeping after Bu, Wang, Zha and Karypis, "Differentially Private Optimization on Large Model
    at Small Cost" (2023); the kernels in layers/ say theirs.
    """

    def __init__(self, model: nn.Module, *, clipping: Clipping | None = None, verify: bool = True) -> None:
        self.model = model
        self.clipping = clipping or Clipping()
        self._unverified = verify
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
            losses: runs the model and returns (B,) losses, one per image. On the first batch of two images or
                more it runs three times, with the same random numbers of torch's (see `verify`).
            units: (B,) whole numbers: images with equal ones are one unit. None: each image (or picture) is
                its own.
            weights: (B,) public factors of the losses, as for images that only fill the batch.
            views: K views of each picture follow each other, and their losses are averaged.

        Raises:
            InvalidRequest: a parameter that is used where it cannot be bounded, by name; losses that are not
                (B,).
        """
        check_model(self.model)
        if self._unverified:
            self._verify(losses)
        sources, squares, total = self._run(losses, units, weights, views)
        factors = self.clipping.factors(squares, len(squares))
        factors = factors.masked_fill(~squares.isfinite().all(0), 0)
        layers = dict(zip(self._layers(sources), factors, strict=True))
        return Clipped(
            sum=total(factors),
            norms=squares.sum(0).clamp_min(0).sqrt(),
            factors=factors.amin(0),
            units=squares.shape[1],
            layers=layers if self.clipping.kind == "per-layer" else {},
        )

    def _verify(self, losses: Callable[[], Tensor]) -> None:
        """Compare one image's gradient with plain autograd's, once."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        devices = sorted({p.device.index or 0 for p in named.values() if p.device.type == "cuda"})
        # The engine first: its pass needs the most memory, and would have autograd's gradients beside it.
        with torch.random.fork_rng(devices):
            _, squares, total = self._run(losses, None, None, 1)
        if squares.shape[1] < 2:
            return
        image, coarsest = squares.shape[1] // 2, self._coarsest
        factors = torch.zeros_like(squares)
        factors[:, image] = 1
        found = total(factors)
        del total
        hand_back()  # kernels were timed, and left holes that nothing else fits into
        with torch.random.fork_rng(devices):
            grads = check.plain(losses, named, image)
        if grads is None:
            return
        check.compare(image, grads, found, coarsest)
        lengths = {"the norm": squares[:, image].sum().clamp_min(0).sqrt().view(1)}
        norm = torch.stack([grad.to(squares.dtype).square().sum() for grad in grads.values()]).sum().sqrt()
        check.compare(image, {"the norm": norm.view(1)}, lengths, coarsest)
        self._unverified = False
        del grads, found
        hand_back()

    @torch.no_grad()
    def _run(
        self, losses: Callable[[], Tensor], units: Tensor | None, weights: Tensor | None, views: int
    ) -> tuple[list[Source], Tensor, Callable[[Tensor], dict[str, Tensor]]]:
        """Run forward and backward; return sources, squared norms (layers, U), and factors -> sums."""
        parts: dict[Source, Part] = {}
        grouping: list[Grouping] = []
        tape = self._tape(lambda source: self._ready(source, parts, grouping[0]))
        sources = list(tape.sources.values())
        with torch.enable_grad():
            with tape:
                found = losses()
            names = {id(p): name for name, p in self.model.named_parameters()}
            check_graph(found, tape, names)
            grouping.append(grouping_of(len(found), units, views))
            check_ops(tape, len(found))
            summed = self._weighted(found, weights, views).sum()
            if summed.requires_grad and len(found):
                torch.autograd.grad(summed, [tape.anchor], allow_unused=True)
        for source in reversed(tape.computed):
            pass_on(tape, source)
        for source in sources:
            if source.terms:
                parts[source] = part_of(source, grouping[0])
        self._coarsest = tape.coarsest
        squares = self._squares(sources, parts, grouping[0].units)
        return sources, squares, lambda factors: self._sums(sources, parts, factors, squares)

    def _tape(self, ready: Callable[[Source], None]) -> Tape:
        sources, constants = [], {id(b) for b in self.model.buffers()}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                sources.append(Source(name, parameter))
            else:
                constants.add(id(parameter))
        if not sources:
            raise InvalidRequest("the model has no trainable parameter: nothing to train")
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

    def _layers(self, sources: list[Source]) -> dict[str, list[Source]]:
        """Return the sources by what shares a factor: a layer, or all."""
        found: dict[str, list[Source]] = {}
        for source in sources:
            layer = source.name.rpartition(".")[0] if self.clipping.kind == "per-layer" else ""
            found.setdefault(layer, []).append(source)
        return found

    def _squares(self, sources: list[Source], parts: dict[Source, Part], units: int) -> Tensor:
        """Return squared norms (layers, U)."""
        layers = self._layers(sources)
        first = sources[0].tensor
        dtype = torch.promote_types(first.dtype, torch.float32)
        out = torch.zeros(len(layers), units, device=first.device, dtype=dtype)
        for place, members in enumerate(layers.values()):
            for source in members:
                if source in parts:
                    out[place] += parts[source].squares
        return out

    @torch.no_grad()
    def _sums(
        self, sources: list[Source], parts: dict[Source, Part], factors: Tensor, squares: Tensor
    ) -> dict[str, Tensor]:
        """Return the sums of factor * gradient; units whose gradient is not finite have no part in any."""
        bad = ~squares.isfinite().all(0)
        spoiled = bad if bool(bad.any()) else None
        sums: dict[Source, Tensor] = {}
        for row, members in zip(factors, self._layers(sources).values(), strict=True):
            for source in members:
                part = parts.pop(source, None)
                if part is None:
                    sums[source] = torch.zeros_like(source.tensor, dtype=source.dtype, requires_grad=False)
                else:
                    sums[source] = part.total(row.to(source.dtype), spoiled).view(source.tensor.shape)
        return {source.name: sums[source] for source in sources}
