"""A run's state on disk: tensors in one safetensors file, the rest as JSON in its header. Never pickle.

A checkpoint holds what noisy steps made of the model (weights, optimiser, averages) and PyTorch's own
generator, which augmentation and dropout use. It holds no key, no seed and no counter of noise: noise has no
state. (Only dp-ftrl's holds noise, which later steps take back in part; so every checkpoint is its owner's.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sfumato.core.errors import IntegrityError, InvalidRequest, MissingExtra
from sfumato.core.files import whole

FORMAT = "sfumato-checkpoint/1"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run's state.

    Args:
        tensors: by name, such as "model/fc.weight" or "optimizer/0/exp_avg".
        state: everything else, as plain data: which run it is, and what `flatten` took out of the optimiser.
    """

    tensors: Tensors
    state: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path, *, mode: int | None = None) -> None:
        """Write it; the file appears whole, readable by its owner alone unless `mode` says otherwise."""
        header = {"format": FORMAT, "state": json.dumps(self.state, allow_nan=True)}
        with whole(path, mode=mode) as aside:
            save_tensors(aside, self.tensors, header)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read it back.

        Raises:
            IntegrityError: it is damaged, or something else; InvalidRequest: there is none.
        """
        if not path.is_file():
            raise InvalidRequest(f"there is no checkpoint at {path}")
        safetensors = _library()
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ValueError(f"its format is {header.get('format')!r}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(tensors, json.loads(header["state"]))
        except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
            raise IntegrityError(
                f"{path} does not read as a checkpoint of a training run: {error}"
            ) from error

    def part(self, name: str) -> Tensors:
        """Return the tensors below a name."""
        prefix = f"{name}/"
        return {
            key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)
        }


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file as it is; `whole` makes it appear whole."""
    _library()
    from safetensors.torch import save_file

    # Two names of one tensor (tied weights) are written twice: the format has no links.
    apart = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    save_file(apart, str(path), metadata=header)


def below(name: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return tensors under a name."""
    return {f"{name}/{key}": value for key, value in tensors.items()}


def flatten(state: Mapping[str, Any]) -> tuple[Tensors, Any]:
    """Take the tensors out of nested plain data, such as an optimiser's state.

    >>> tensors, rest = flatten({"state": {0: {"step": torch.tensor(3.0)}}, "lr": 0.1})
    >>> list(tensors), unflatten(tensors, rest)["lr"]
    (['0'], 0.1)

    Raises:
        InvalidRequest: something that is neither a tensor nor plain data.
    """
    tensors: Tensors = {}
    return tensors, _out(state, tensors)


def unflatten(tensors: Mapping[str, torch.Tensor], rest: Any) -> Any:
    """Put the tensors back."""
    match rest:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"table": list(pairs)}:
            return {unflatten(tensors, key): unflatten(tensors, value) for key, value in pairs}
        case {"row": list(items)}:
            return tuple(unflatten(tensors, item) for item in items)
        case list():
            return [unflatten(tensors, item) for item in rest]
        case _:
            return rest


def _out(value: Any, tensors: Tensors) -> Any:
    match value:
        case torch.Tensor():
            name = str(len(tensors))
            tensors[name] = value
            return {"tensor": name}
        case Mapping():
            return {"table": [[_out(key, tensors), _out(item, tensors)] for key, item in value.items()]}
        case tuple():
            return {"row": [_out(item, tensors) for item in value]}
        case list():
            return [_out(item, tensors) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise InvalidRequest(
                f"a checkpoint holds tensors and plain data, got {type(value).__name__}: leave it out"
            )


def _library() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise MissingExtra("a checkpoint", ("safetensors",), "training") from error
    return safetensors
