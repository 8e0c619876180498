"""What is recorded of one forward and backward pass, and how operations are seen.

A `TorchFunctionMode` sees each operation that is called with a trainable parameter, wherever it is called
from: layers that are used twice, shared weights, functional code and raw parameters alike. Each is replaced
by a recorded one, which knows the parameter's numbers only, so that autograd never reaches the parameter
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from sfumato.core.errors import InvalidRequest
from sfumato.training.engine.again import Recipes
from sfumato.training.engine.record import Op
from sfumato.training.engine.table import FASTER, HANDLERS, WATCHED
from sfumato.training.engine.terms import Term


@dataclass(slots=True, eq=False)
class Source:
    """A parameter, or a tensor computed from parameters alone, that a batch meets.

    Args:
        name: the parameter's, or of what it was computed from.
        tensor: itself, kept so that its id stays its own.
        parents: of a computed one.
        awaited: uses in the forward pass that the backward has not handed over yet.
        terms: what was handed over.
        leaf: see `alone`.
    """

    name: str
    tensor: Tensor
    parents: tuple[Source, ...] = ()
    awaited: int = 0
    terms: list[Term] = field(default_factory=list)
    leaf: Tensor | None = None

    def alone(self) -> Tensor:
        """Return the same numbers without a history, for what is computed from them."""
        if self.leaf is None:
            self.leaf = self.tensor.detach().requires_grad_()
        return self.leaf

    @property
    def dtype(self) -> torch.dtype:
        """The type of norms and sums: the parameter's, and single precision at least."""
        return torch.promote_types(self.tensor.dtype, torch.float32)

    def like(self, tensor: Tensor) -> Tensor:
        """Return the tensor in that type: sums and norms are never taken in half precision."""
        return tensor if tensor.dtype == self.dtype else tensor.to(self.dtype)


class Tape(TorchFunctionMode):
    """The operations of one pass.

    Args:
        parameters: name -> trainable parameter.
        constants: ids of tensors that are the same for every image (buffers, frozen parameters).
        ready: called with each source whose uses have all been handed over.
    """

    def __init__(
        self, parameters: Iterable[Source], constants: set[int], ready: Callable[[Source], None]
    ) -> None:
        super().__init__()
        self.sources = {id(source.tensor): source for source in parameters}
        self.computed: list[Source] = []
        self.constants = constants
        self.ready = ready
        self.ops: list[Op] = []
        self.recipes = Recipes()
        self.coarsest = torch.float64
        self.anchor = torch.zeros((), requires_grad=True)

    def source(self, tensor: object) -> Source | None:
        """Return the source that a tensor is."""
        return self.sources.get(id(tensor))

    def fixed(self, *tensors: Tensor | None) -> bool:
        """Return whether tensors are sources, or have no gradient."""
        return all(t is None or id(t) in self.sources or not t.requires_grad for t in tensors)

    def batched(self, tensor: Tensor) -> bool:
        """Return whether a tensor may belong to the batch."""
        return id(tensor) not in self.sources and id(tensor) not in self.constants

    def use(self, *sources: Source | None) -> tuple[Source | None, ...]:
        """Expect that uses are handed over."""
        for source in sources:
            if source:
                source.awaited += 1
        return sources

    def take(self, source: Source, term: Term) -> None:
        """Take what one use hands over."""
        source.terms.append(term)
        if source.tensor.dtype.itemsize < self.coarsest.itemsize:
            self.coarsest = source.tensor.dtype
        source.awaited -= 1
        if source.awaited == 0:
            self.ready(source)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation; recorded where it meets a source."""
        kwargs = kwargs or {}
        sources = self.sources
        for value in (*args, *kwargs.values()):
            if id(value) in sources or (
                type(value) in (list, tuple) and any(id(part) in sources for part in value)
            ):
                break
        else:
            if func in WATCHED:
                WATCHED[func](*args, **kwargs)
            out = run(func, args, kwargs)
            self.recipes.note(func, args, kwargs, out)
            return out
        return self.record(func, args, kwargs) if torch.is_grad_enabled() else func(*args, **kwargs)

    def record(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation on a source by the first way that is its own."""
        from sfumato.training.engine.layers import raw

        found, batch = self.tensors(args, kwargs)
        if not batch:
            return self.compute(func, args, kwargs, found)
        handler = HANDLERS.get(func)
        out = handler(self, *args, **kwargs) if handler else None
        return raw.general(self, func, args, kwargs) if out is None else out

    def tensors(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Source], list[Tensor]]:
        """Return the sources among arguments, and the tensors that belong to the batch."""
        found: list[Source] = []
        batch: list[Tensor] = []
        for value in (*args, *kwargs.values()):
            for part in value if isinstance(value, list | tuple) else (value,):
                if isinstance(part, Tensor):
                    source = self.sources.get(id(part))
                    if source:
                        found.append(source)
                    elif id(part) not in self.constants:
                        batch.append(part)
        return found, batch

    def compute(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], found: list[Source]
    ) -> Any:
        """Run an operation on parameters alone; what comes out is a source in turn."""
        from sfumato.training.engine.layers import raw

        expanded = raw.expanded(self, func, args, kwargs)
        if expanded is not None:
            return expanded
        # From leaves of their own, so that a gradient goes one step back and no further.
        new, named = raw.swap(self, args, kwargs, Source.alone)
        out = func(*new, **named)
        for part in out if isinstance(out, list | tuple) else (out,):
            if isinstance(part, Tensor) and part.requires_grad and id(part) not in self.sources:
                parents = tuple({id(source): source for source in found}.values())
                self.use(*parents)
                source = Source(parents[0].name, part, parents)
                self.sources[id(part)] = source
                self.computed.append(source)
        return out

    def refuse(self, sources: Iterable[Source], why: str) -> InvalidRequest:
        """Return the error that names the parameters."""
        names = ", ".join(sorted({repr(source.name) for source in sources})) or "a parameter"
        return InvalidRequest(f"{names}: {why}")


class Faster(TorchFunctionMode):
    """Runs what is known in a faster way so, and records nothing."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation."""
        return run(func, args, kwargs or {})


def run(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an operation that meets no parameter."""
    faster = FASTER.get(func)
    out = faster(*args, **kwargs) if faster else None
    return func(*args, **kwargs) if out is None else out


def name_of(func: Callable[..., Any]) -> str:
    """Return an operation's name for messages."""
    return str(resolve_name(func) or getattr(func, "__name__", func))
