"""Your own loop, made private: sample, clip, add noise, step.

    private = sfumato.training.private(model, loss, optimizer=optimizer, run=run)
    for batch in private.batches(dataset, units=patients):
        private.step(batch)

`loss` gives one value per image. Everything that a step's noise protects happens in `step`; nothing else
that was computed from the data comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from sfumato.core.entropy import below
from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.mechanisms.gaussian import GaussianNoise, grid_for
from sfumato.training import ftrl
from sfumato.training.augmenting import check_augment
from sfumato.training.checkpoint import below as under
from sfumato.training.checkpoint import flatten, unflatten
from sfumato.training.coupling import check as check_coupling
from sfumato.training.ema import EMA
from sfumato.training.engine import Clipping, Engine
from sfumato.training.run import TrainingRun
from sfumato.training.sampling import Sample, Units, poisson
from sfumato.training.settings import TrainingSettings, fraction
from sfumato.training.source import Fetch, moved, repeated, source_of
from sfumato.training.team import Team

Loss = Callable[[Any, Any], torch.Tensor]
Augment = Callable[[Any], Any]
Sums = dict[str, torch.Tensor]


class Gradients(Protocol):
    """What an engine does (training/engine)."""

    def gradients(
        self, losses: Callable[[], torch.Tensor], units: torch.Tensor | None = None, *, views: int = 1
    ) -> Any:
        """Return an object with `sum`: name -> clipped sum."""
        ...


@dataclass(slots=True)
class Batch:
    """One step's images, drawn and not yet used. How many there are is private."""

    sample: Sample = field(repr=False)
    fetch: Fetch = field(repr=False)
    number: int = 0
    used: bool = False


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What dp-ftrl keeps over the run: correlated noise, and each unit's place in the order."""

    noise: ftrl.CorrelatedNoise
    groups: np.ndarray[Any, np.dtype[np.int64]]


class Private:
    """A model whose steps are private; get one from `private`.

    Guarantee:
        What the steps leave in the model, the optimiser and the average is (epsilon, delta)-differentially
        private as the run's plan states, for its privacy unit, add-or-remove-one:
        docs/guarantees/training.md.

    Attributes:
        ema: the average of the weights; None without one.
        extra: plain data that `save` was given, out of the checkpoint that the run was taken up from.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Loss,
        *,
        optimizer: torch.optim.Optimizer,
        run: TrainingRun | None,
        augment: Augment | None = None,
        ema: float = 0.0,
        engine: Gradients | None = None,
        check: bool = False,
    ) -> None:
        self.team = Team.here()
        if (run is not None) != self.team.leads:
            raise InvalidRequest(
                "the process of rank 0 has the run, and it alone: give run=None on the others"
            )
        self.run, self.model, self._loss, self._augment = run, model, loss, augment
        self._check = check
        self.settings: TrainingSettings = self.team.tell(run.settings if run is not None else None)
        self._clip = Clipping(self.settings.clipping, float(self.settings.clip))
        self._engine: Gradients = engine or Engine(model, clipping=self._clip)
        self._optimizer = optimizer
        _check_model(model)
        _check_optimizer(optimizer, model)
        self.ema = EMA(model, ema) if ema else None
        threads = min(64, torch.get_num_threads())
        self._noise = GaussianNoise(run.permit, threads=threads) if run is not None else None
        self._fixed: _Fixed | None = None
        self._last: Batch | None = None
        self.extra: Any = None
        if run is not None and run.loaded is not None:
            self._restore(run)
        elif run is not None and self.settings.mechanism == "dp-ftrl":
            ftrl.check_resumed(run.begun, None)
        self._spread()
        self._buffers = {name: value.detach().clone() for name, value in model.named_buffers()}

    # Sampling

    def batches(self, data: Any, *, units: Sequence[Hashable] | None = None) -> Iterator[Batch]:
        """Draw one batch for each step that is left; call `step` for every one of them.

        Args:
            data: (images, targets), or a dataset with items (image, target).
            units: whose each image is, in the order of the data: needed unless the population's unit is
                image.

        Raises:
            InvalidRequest: units are missing, or a batch was left out.
        """
        fetch, count = source_of(data)
        if self._check:
            self._check = False
            images, targets = fetch(np.arange(1))
            if self._augment is not None:
                check_augment(self._augment, images)
            check_coupling(self.model, self._loss, images, targets)
        groups = self._units(count, units)
        while self._left():
            yield self._draw(groups, fetch)

    def _units(self, count: int, units: Sequence[Hashable] | None) -> Units:
        unit = self.team.tell(self.run.planned.unit if self.run is not None else None)
        if units is None:
            if unit != "image":
                raise InvalidRequest(
                    f"the population's privacy unit is {unit}: say whose each image is, by units=[...] (one "
                    "key per image). Without it the guarantee would be per image, and is never so in silence."
                )
            return Units.each(count)
        if len(units) != count:
            raise InvalidRequest(f"{count} images have {len(units)} units: give one key for each image")
        return Units.of(units)

    def _left(self) -> int:
        return int(self.team.tell(self.run.left if self.run is not None else None))

    def _draw(self, units: Units, fetch: Fetch) -> Batch:
        if self._last is not None and not self._last.used:
            raise InvalidRequest(
                f"batch {self._last.number} was left out: every batch is a step that was counted; call "
                "step(batch)"
            )
        drawn: Any = None
        if self.run is not None:
            try:
                drawn = (self.run.begin(), self._sample(units, self.run))
            except SfumatoError as error:
                drawn = error  # the other ranks must not wait for ever
        number, sample = self.team.tell(drawn)
        self._last = Batch(self.team.part(sample), fetch, number)
        return self._last

    def _sample(self, units: Units, run: TrainingRun) -> Sample:
        if self.settings.mechanism == "dp-sgd":
            chosen = poisson(len(units), fraction(self.settings.rate), run.permit.entropy)
        else:
            fixed = self._order(len(units), run)
            chosen = np.flatnonzero(fixed.groups == (run.begun - 1) % self.settings.period)
        return units.sample(chosen, self.settings.most_images, lambda: run.permit.entropy)

    def _order(self, count: int, run: TrainingRun) -> _Fixed:
        if self._fixed is None:
            assert self._noise is not None
            noise = ftrl.CorrelatedNoise(self._noise, self.settings.bands, self.settings.steps)
            entropy = run.permit.entropy
            self._fixed = _Fixed(
                noise, ftrl.groups(count, self.settings.period, lambda most: below(entropy, most))
            )
        if len(self._fixed.groups) != count:
            raise InvalidRequest("the data have another number of units than when this run began")
        return self._fixed

    # A step

    def step(self, batch: Batch) -> None:
        """Clip and sum the gradients of a batch, add noise, and step the optimiser.

        Args:
            batch: the last one that `batches` gave; each is used once.

        Raises:
            InvalidRequest: another batch, losses that are not one per image, or a model that keeps data in
                its buffers.
        """
        if not isinstance(batch, Batch) or batch is not self._last or batch.used:
            raise InvalidRequest(
                "step takes the batch that batches() drew last, once: the price rests on how it was "
                "drawn. Load your images by a dataset with len() and items"
            )
        batch.used = True
        named = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        size = sum(value.numel() for value in named.values())
        grid = grid_for(self._clip.sensitivity, size)
        sums, loss = self._sums(batch, named)
        self.team.gather(sums)
        with torch.no_grad():
            if self.run is not None:
                self._add_noise(sums, grid, self.run)
            self.team.share(sums)
            for name, value in named.items():
                value.grad = sums[name].div_(self.settings.normaliser).to(value)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model)
        self._check_buffers()
        if self.run is not None:
            self.run.completed(loss)

    def _sums(self, batch: Batch, named: dict[str, torch.nn.Parameter]) -> tuple[Sums, float | None]:
        """Return the clipped sum over micro-batches, and the mean loss (for debugging alone)."""
        parts = list(batch.sample.parts(max(1, self.settings.physical_batch // self.settings.views)))
        losses: list[torch.Tensor] = []
        if len(parts) == 1 and self.team.size == 1:
            sums = dict(self._gradients(parts[0], batch.fetch, losses))
        else:
            # Many parts are added up in float64, and what comes of them is rounded once: which part a unit is
            # in depends on who else is there, and must not move the sum.
            sums = {
                name: torch.zeros(value.shape, dtype=torch.float64, device=value.device)
                for name, value in named.items()
            }
            for part in parts:
                found = self._gradients(part, batch.fetch, losses)
                for name, total in sums.items():
                    total += found[name]
        mean = float(torch.cat(losses).mean()) if losses and self.settings.insecure_debug else None
        return sums, mean

    def _gradients(self, part: Sample, fetch: Fetch, losses: list[torch.Tensor]) -> Any:
        device = next(self.model.parameters()).device
        images, targets = fetch(part.images)
        views = self.settings.views
        images, targets = moved(repeated(images, views), device), moved(repeated(targets, views), device)
        if self._augment is not None:
            images = self._augment(images)
        units = None
        if len(np.unique(part.units)) != len(part.units):
            units = torch.from_numpy(np.repeat(part.units, views)).to(device)

        def forward() -> torch.Tensor:
            half = self.settings.precision == "bfloat16"
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                found = self._loss(self.model(images), targets)
            if not isinstance(found, torch.Tensor) or found.shape != (len(part.images) * views,):
                raise InvalidRequest(
                    f"the loss must give one value per image, ({len(part.images) * views},), got "
                    f"{tuple(found.shape) if isinstance(found, torch.Tensor) else found!r}: use "
                    'reduction="none"'
                )
            if self.settings.insecure_debug:
                losses.append(found.detach().float())
            return found

        return self._engine.gradients(forward, units, views=views).sum

    def _add_noise(self, sums: Sums, grid: float, run: TrainingRun) -> None:
        assert self._noise is not None
        deviation = run.planned.deviation(self._clip.sensitivity)
        host = {name: value.to("cpu").contiguous() for name, value in sums.items()}
        if self._fixed is None:
            self._noise.add_to([value.numpy() for value in host.values()], deviation, grid)
        else:
            drawn = torch.from_numpy(self._fixed.noise.draw(sum(value.numel() for value in host.values())))
            cells = drawn.mul_(deviation / grid).round_()
            start = 0
            for value in host.values():
                part = cells[start : start + value.numel()].view(value.shape)
                value.copy_((value.double() / grid).round_().add_(part).mul_(grid))
                start += value.numel()
        for name, value in host.items():
            sums[name].copy_(value)

    def _check_buffers(self) -> None:
        for name, value in self.model.named_buffers():
            if name not in self._buffers or not torch.equal(value, self._buffers[name]):
                raise InvalidRequest(
                    f"the model's buffer {name!r} changed in a step: data went into it without noise, as the "
                    "running statistics of BatchNorm do. Freeze it, or replace that layer, and plan a new run"
                )

    # State

    def save(self, extra: Any = None) -> None:
        """Write the run's checkpoint: weights, optimiser, average, generator of PyTorch, and `extra`."""
        if self.run is None:
            return
        tensors, rest = flatten(self._optimizer.state_dict())
        parts = under("model", self.model.state_dict()) | under("optimizer", tensors)
        parts["rng"] = torch.get_rng_state()
        state: dict[str, Any] = {"optimizer": rest, "extra": extra}
        if self.ema is not None:
            parts |= under("ema", self.ema.weights)
            state["ema_steps"] = self.ema.steps
        if self._fixed is not None:
            parts |= under("noise", self._fixed.noise.state())
            parts["groups"] = torch.from_numpy(self._fixed.groups)
        self.run.save(parts, state)

    def _restore(self, run: TrainingRun) -> None:
        saved = run.loaded
        assert saved is not None
        state = saved.state["more"]
        self.model.load_state_dict(saved.part("model"))
        self._optimizer.load_state_dict(unflatten(saved.part("optimizer"), state["optimizer"]))
        if self.ema is not None and "ema_steps" in state:
            self.ema.load(saved.part("ema"), state["ema_steps"])
        if self.settings.mechanism == "dp-ftrl":
            ftrl.check_resumed(run.begun, saved.state["run"])
            assert self._noise is not None
            noise = ftrl.CorrelatedNoise(self._noise, self.settings.bands, self.settings.steps)
            noise.load(saved.part("noise"))
            if "groups" in saved.tensors:
                self._fixed = _Fixed(noise, saved.tensors["groups"].numpy())
        torch.set_rng_state(saved.tensors["rng"])
        self.extra = state.get("extra")

    def _spread(self) -> None:
        """Give every rank rank 0's weights and optimiser."""
        if self.team.size == 1:
            return
        state = self.team.tell(
            (self.model.state_dict(), self._optimizer.state_dict()) if self.team.leads else None
        )
        self.model.load_state_dict(state[0])
        self._optimizer.load_state_dict(state[1])
        if self.ema is not None:
            self.ema.load(self.team.tell(self.ema.weights), self.team.tell(self.ema.steps))


def private(
    model: torch.nn.Module,
    loss: Loss,
    *,
    optimizer: torch.optim.Optimizer,
    run: TrainingRun | None,
    augment: Augment | None = None,
    ema: float = 0.0,
    check: bool = True,
) -> Private:
    """Make a model's training private, for a loop of your own.

    >>> private = sfumato.training.private(model, loss, optimizer=optimizer, run=run)  # doctest: +SKIP
    >>> for batch in private.batches((images, labels)):  # doctest: +SKIP
    ...     private.step(batch)

    Guarantee:
        As the run's plan states; see `Private`.

    Args:
        model: in the mode that it is to be trained in; trainable parameters alone are trained.
        loss: (outputs, targets) -> (B,) losses, one per image, each from its own image alone.
        optimizer: any of PyTorch's, over parameters of the model.
        run: that was charged (`Project.training`); None on the further ranks of a DDP job.
        augment: batch of images -> another view of each, by public randomness; called once per step part.
        ema: decay of an average of the weights; 0: none.
        check: whether the first `batches` probes model and loss for coupling between images, on made-up ones
            of the shape of the data's (training/coupling.py); False where you did so yourself.

    Raises:
        InvalidRequest: a model or optimiser that could not be made private, by name.
    """
    return Private(model, loss, optimizer=optimizer, run=run, augment=augment, ema=ema, check=check)


def _check_model(model: torch.nn.Module) -> None:
    """Refuse weights in half precision: their sums would be rounded by more than clipping leaves room for."""
    for name, value in model.named_parameters():
        if value.requires_grad and value.dtype not in (torch.float32, torch.float64):
            raise InvalidRequest(
                f"the parameter {name!r} is {value.dtype}: keep weights in float32, and ask for "
                'precision="bfloat16", which is for the forward and backward pass'
            )


def _check_optimizer(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
    """Refuse an optimiser that would step on gradients which `step` does not make."""
    known = {id(value) for value in model.parameters()}
    trained = {id(value) for value in model.parameters() if value.requires_grad}
    stepped = {id(value) for group in optimizer.param_groups for value in group["params"]}
    if stepped - known:
        raise InvalidRequest(
            f"the optimiser has {len(stepped - known)} parameters that are not the model's: their "
            "gradients would carry no noise"
        )
    if missing := trained - stepped:
        raise InvalidRequest(
            f"{len(missing)} trainable parameters are not in the optimiser: add them, or freeze them by "
            "requires_grad_(False), so that they take no part of the clipping bound"
        )
