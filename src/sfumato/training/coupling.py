"""The coupling probe: does one image move what another image gives? Run before private training.

Clipping bounds what one image does to a sum of gradients only if each gradient is a function of its own
image. BatchNorm, a loss divided by a sum over the batch, or a mosaic break that in silence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from sfumato.core.errors import InvalidRequest
from sfumato.training.changes import STRONG, SUBTLE, TAINT, Change, size, tensors, without
from sfumato.training.observing import Losses, Observer, Seen, differs, same

#: Kernels add in another order for another number of images; a loss that depends on it moves by 1/images.
OTHER_SIZE = 1e-3
#: On an accelerator, sums may come in another order from call to call; on a processor nothing may move.
OTHER_CALL = 2.0**-18
NAMED = 6
#: Images that are made up where none are given.
MADE_UP = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which images are coupled.

    Args:
        kind: "layer", "output", "loss", "gradient", "memory", "state" or "batch size".
        says: what was seen, and where, in a sentence.
    """

    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class Coupling:
    """What the probe found.

    Args:
        findings: none: no coupling was seen.
        notes: what could not be tried.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def refuse(self) -> None:
        """Raise if anything was found.

        Raises:
            InvalidRequest: lists the findings and the ways out.
        """
        if self.clean:
            return
        lines = [f"  - {one.kind}: {one.says}" for one in self.findings[:NAMED]]
        if len(self.findings) > NAMED:
            lines.append(f"  - and {len(self.findings) - NAMED} more")
        raise InvalidRequest(
            "one image moves what others give, so clipping would bound nothing and no guarantee would hold:\n"
            + "\n".join(lines)
            + f"\n{_way_out({one.kind for one in self.findings})}"
        )


def probe(
    model: nn.Module,
    losses: Losses,
    batch: Any,
    *,
    changes: Mapping[str, Change] | None = None,
    drop: Change | None = without,
    images: int | None = None,
    train: bool = True,
) -> Coupling:
    """Change one image of a batch, again and again, and look whether anything of the others moves.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> batch = torch.randn(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> cross_entropy = nn.functional.cross_entropy
    >>> probe(model, lambda b: cross_entropy(model(b[0]), b[1], reduction="none"), batch).clean
    True
    >>> probe(model, lambda b: cross_entropy(model(b[0]), b[1], reduction="none") / b[1].sum(), batch).clean
    False

    Guarantee (tested):
        On this batch and under these changes, no other image's loss, activations, their gradients, or
        parameters' gradients moved by a bit (on an accelerator: by 2^-18); no buffer depended on an image;
        and without one image the others' losses and gradients stayed, to 1e-3. It is a test and no proof: a
        coupling that only other data set off is not seen.

    Args:
        model: is left as it was: buffers, modes, and `.grad`.
        losses: batch -> (images,) losses, by calling the model.
        batch: 3 to 8 images, public or made up, with different labels: the probe's outcome is not charged.
        changes: name -> (batch, index) -> batch, in place of our own: for batches of another form.
        drop: (batch, index) -> batch without that image; None: do not try it.
        images: how many there are, where the tensors do not say.
        train: probe in train mode, as training runs; False: as each module is now.

    Raises:
        InvalidRequest: fewer than 3 images, losses that are not one per image, lazy layers without a size.
    """
    findings = list(layers(model, train=train))
    lazy = [n for n, p in _lazy(model)]
    if lazy and findings:
        return Coupling(tuple(findings))
    if lazy:
        raise InvalidRequest(f"{lazy[0]} has no size yet: run one batch through the model before training")
    count = images or size(batch)
    if count < 3:
        raise InvalidRequest(f"the probe needs at least 3 images, got {count}")
    tried = _Probe(model, losses, batch, count, drop)
    with _mode(model, train):
        try:
            tried.run(changes)
        except (RuntimeError, ValueError):
            if not findings:  # a layer that is refused anyway may not run here: SyncBatchNorm needs a GPU
                raise
    return Coupling(tuple(findings + tried.findings), tuple(tried.notes))


def check(model: nn.Module, loss: Callable[[Any, Any], Any], images: Any, targets: Any) -> None:
    """Probe a model and a loss on made-up images, and refuse what couples them.

    Guarantee:
        Of `images` and `targets` nothing but shapes, types and device is looked at, so that the outcome says
        nothing of them.

    Args:
        model: in the mode that it is trained in.
        loss: (outputs, targets) -> (images,) losses.
        images, targets: at least one, as tensors; of other things nothing can be made up, and they pass.

    Raises:
        InvalidRequest: images are coupled, or the made-up ones do not run.
    """
    if not all(isinstance(one, Tensor) and one.ndim for one in (images, targets)):
        return
    device = next(model.parameters()).device
    batch = made_up(images).to(device), made_up(targets).to(device)
    try:
        found = probe(model, lambda b: loss(model(b[0]), b[1]), batch, train=False)
    except (RuntimeError, IndexError, ValueError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(
            f"the model or its loss does not run on made-up images of the data's shape ({error}): call "
            "training.coupling.probe with a public batch yourself, and give check=False"
        ) from error
    found.refuse()


def made_up(like: Tensor, count: int = MADE_UP) -> Tensor:
    """Return chance of the shape and type of one row: -1..1 for numbers, 0 and 1 for whole ones.

    >>> made_up(torch.zeros(1, dtype=torch.long)).tolist()
    [0, 1, 0, 1]
    """
    generator, shape = torch.Generator().manual_seed(1), (count, *like.shape[1:])
    if like.is_floating_point():
        return torch.empty(shape).uniform_(-1, 1, generator=generator).to(like.dtype)
    if len(shape) == 1:
        return (torch.arange(count) % 2).to(like.dtype)
    most = 256 if like.dtype == torch.uint8 else 2
    return torch.empty(shape).uniform_(0, most, generator=generator).floor().to(like.dtype)


def layers(model: nn.Module, *, train: bool = True) -> Iterator[Finding]:
    """Iterate over the layers whose kind alone couples images, whatever the data.

    Args:
        train: as if in train mode; False: as each module is now.
    """
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, _BatchNorm):
            if _learns(module, train) or module.running_mean is None:
                yield Finding(
                    "layer",
                    f"{name or 'the model'} ({kind}) normalises each image by the others of its batch, also "
                    "where its parameters are frozen or absent",
                )
        elif isinstance(module, _NormBase) and module.track_running_stats and _learns(module, train):
            yield Finding(
                "layer",
                f"{name or 'the model'} ({kind}) keeps running statistics of the images, without noise, in "
                "what is saved: set track_running_stats=False",
            )


def _learns(module: nn.Module, train: bool) -> bool:
    """Return whether a norm would use or update statistics of the batch; frozen ones stay in eval mode."""
    if not train:
        return module.training
    before = [(one, one.training) for one in module.modules()]
    module.train()
    learns = module.training
    for one, mode in before:
        one.training = mode
    return learns


def _lazy(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the parameters and buffers that have no size yet."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(n, p) for n, p in named if isinstance(p, UninitializedParameter | UninitializedBuffer)]


class _Probe:
    """The trials, and what they found so far: one finding of a kind is enough."""

    def __init__(self, model: nn.Module, losses: Losses, batch: Any, count: int, drop: Change | None) -> None:
        self.observer = Observer(model, losses, images=count)
        self.model, self.batch, self.count, self.drop = model, batch, count, drop
        self.weights = [1 + 0.37 * (j % 5) for j in range(count)]
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        on_cpu = all(one.device.type == "cpu" for one in (*tensors(batch), *model.parameters()))
        self.tolerance = 0.0 if on_cpu else OTHER_CALL

    def run(self, changes: Mapping[str, Change] | None) -> None:
        everyone = range(self.count)
        base = self._see(self.batch, list(everyone))
        if not self._again(base, "two equal calls gave different results"):
            return
        strong, subtle = (STRONG, SUBTLE) if changes is None else (changes, {})
        for name, change in strong.items():
            for index in everyone:
                self._compare(base, self._see(change(self.batch, index), [index]), index, name)
        for name, change in subtle.items():
            self._compare(base, self._see(change(self.batch, 0), [0]), 0, name)
        if changes is None:
            self._taint(base)
        self._again(base, "a call gave something else after other images were seen")
        if self.drop is not None:
            self._smaller(self.drop)

    def _see(self, batch: Any, leave_out: list[int], *, seed: int = 7) -> Seen:
        return self.observer.run(batch, weights=self.weights, leave_out=leave_out, seed=seed)

    def _again(self, base: Seen, says: str) -> bool:
        now = self._see(self.batch, [0])
        stays = same(base.losses, now.losses, self.tolerance) and not [
            name for name in base.rows if not self._row_stays(base, now, name, [*range(self.count)])
        ]
        if not stays:
            self._add(
                "state",
                f"{says}: something is kept from call to call (a queue, a bank of features), or chance comes "
                "from outside of torch's generators",
            )
        return stays

    def _compare(self, base: Seen, now: Seen, changed: int, how: str) -> None:
        """Look at everything that does not belong to the changed image."""
        others = [j for j in range(self.count) if j != changed]
        what = (
            f"image {changed} was made {how}" if " label alone" not in how else f"image {changed} got {how}"
        )
        moved = [name for name in base.rows if not self._row_stays(base, now, name, others)]
        forward = [name for name in moved if not name.startswith("gradient")]
        if forward:
            self._add("output", f"{what}, and it moved others; it first shows in the {forward[0]}")
        if not same(base.losses[others], now.losses[others], self.tolerance):
            self._add("loss", f"{what}, and the losses of others moved")
        backward = [name for name in moved if name.startswith("gradient")]
        if backward:
            self._add("gradient", f"{what}, and it moved others' gradients; it shows in the {backward[0]}")
        elif (
            changed in base.gradients
            and bool(now.losses[changed].isfinite())  # else zero times infinity is in every gradient
            and not same(base.gradients[changed], now.gradients[changed], self.tolerance)
        ):
            self._add("gradient", f"{what}, and it moved the parameters' gradient of the others' losses")
        for name in differs(base.memory, now.memory)[:1]:
            self._add(
                "memory", f"{what}, and the {name} holds something else after: it would be kept, un-noised"
            )

    def _row_stays(self, base: Seen, now: Seen, name: str, others: list[int]) -> bool:
        return name in now.rows and same(base.rows[name][others], now.rows[name][others], self.tolerance)

    def _taint(self, base: Seen) -> None:
        """Make one image NaN: any sum with it, however small its weight, shows."""
        for index in (0, self.count - 1):
            try:
                now = self.observer.run(TAINT(self.batch, index), backward=False)
            except (RuntimeError, ValueError) as error:
                self.notes.append(f"an image of NaN could not be tried: {error}")
                return
            others = [j for j in range(self.count) if j != index]
            if not torch.equal(now.losses[others].isnan(), base.losses[others].isnan()):
                self._add("loss", f"image {index} was made NaN, and losses of others became so")

    def _smaller(self, drop: Change) -> None:
        """Take one image out: add-or-remove-one is what neighbours are."""
        whole, other = self._see(self.batch, []), self._see(self.batch, [], seed=8)
        with contextlib.ExitStack() as stack:
            if not same(whole.losses, other.losses, OTHER_SIZE):  # dropout: another size, another mask
                stack.enter_context(_mode(self.model, False, evaluate=True))
                whole, other = self._see(self.batch, []), self._see(self.batch, [], seed=8)
                if not same(whole.losses, other.losses, OTHER_SIZE):
                    self.notes.append(
                        "the loss is random in eval mode too: batches of other sizes were not tried"
                    )
                    return
            for left in (0, self.count - 1):
                self._without(drop, left)

    def _without(self, drop: Change, left: int) -> None:
        keep = [j for j in range(self.count) if j != left]
        whole = self._see(self.batch, [left])
        fewer = self.observer.run(
            drop(self.batch, left),
            weights=[self.weights[j] for j in keep],
            leave_out=[-1],
            images=self.count - 1,
        )
        says = f"without image {left}, the others' {{}} changed by more than {OTHER_SIZE:g}"
        if not same(whole.losses[keep], fewer.losses, OTHER_SIZE):
            self._add("batch size", says.format("losses"))
        elif left in whole.gradients and not same(whole.gradients[left], fewer.gradients[-1], OTHER_SIZE):
            self._add("batch size", says.format("gradients"))

    def _add(self, kind: str, says: str) -> None:
        if kind not in {one.kind for one in self.findings}:
            self.findings.append(Finding(kind, says))


@contextlib.contextmanager
def _mode(model: nn.Module, train: bool, *, evaluate: bool = False) -> Iterator[None]:
    """Put a model into train (or eval) mode for a while, and every module back into its own."""
    before = [(module, module.training) for module in model.modules()]
    if train:
        model.train()
    if evaluate:
        model.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _way_out(kinds: set[str]) -> str:
    ways = {
        "layer": "replace_batchnorm(model, with_='group') or with_='freeze' takes BatchNorm out",
        "output": "compute each image's output from that image alone (no mixup, mosaic, batch statistics)",
        "loss": "divide by public constants only, never by a sum or a count over the batch",
        "batch size": "divide by the expected batch, which is public, and let the engine do it",
        "gradient": "no hook may mix the gradients of images",
        "memory": "keep no statistics or features of images in the model",
        "state": "keep nothing from call to call, and draw chance from torch's generators",
    }
    return "Ways out: " + "; ".join(way for kind, way in ways.items() if kind in kinds) + "."
