"""What cannot be bounded per image is refused by name: before training, or before a step is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.core.errors import InvalidRequest
from sfumato.training.engine.tape import Tape

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def check_model(model: nn.Module) -> None:
    """Refuse modules that mix images, or whose parameters cannot be told apart.

    Raises:
        InvalidRequest: with every such module's name.
    """
    if not isinstance(model, nn.Module):
        raise InvalidRequest(f"model must be a torch.nn.Module, got {type(model).__name__}")
    wrong = [
        f"{name or 'model'} ({type(m).__name__}): {why}"
        for name, m in model.named_modules()
        if (why := reason(m))
    ]
    if wrong:
        raise InvalidRequest("the model cannot be bounded per image:\n  " + "\n  ".join(wrong))


def reason(module: nn.Module) -> str:
    """Return why a module cannot be bounded; empty: nothing speaks against it by its kind."""
    own = [p for p in module.parameters(recurse=False) if p.requires_grad]
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        if module.training or module.running_mean is None:
            return "batch norm takes the statistics of the batch: freeze or replace it"
    elif isinstance(module, nn.modules.instancenorm._InstanceNorm):
        if module.training and module.track_running_stats:
            return "keeps running statistics of the images, which would leave without noise"
    elif isinstance(module, RECURRENT) and own:
        return "recurrent layers are not bounded; freeze it, or write it with nn.Linear"
    elif isinstance(module, torch.jit.ScriptModule):
        return "compiled by TorchScript, so its operations cannot be seen; pass the module itself"
    elif type(module).__name__ == "OptimizedModule":
        return "compiled by torch.compile, so its operations cannot be seen; pass the module itself"
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in own):
        return "has parameters without a shape yet; run it once first"
    if any(p.is_sparse or p.is_complex() for p in own):
        return "has sparse or complex parameters"
    return ""


def check_ops(tape: Tape, images: int) -> None:
    """Refuse recorded operations whose dim 0 is not the batch.

    Raises:
        InvalidRequest: with the parameters' names.
    """
    for op in tape.ops:
        if op.batch != images:
            raise tape.refuse(
                [source for source in op.sources if source],
                f"it met an activation of {op.batch} rows, but there are {images} losses: dim 0 must be "
                "the batch",
            )


def check_graph(losses: object, tape: Tape, names: Mapping[int, str]) -> None:
    """Refuse losses that are not one per image, or that reach a parameter by a way that was not recorded.

    Raises:
        InvalidRequest: with the parameter's name.
    """
    if not isinstance(losses, Tensor) or losses.dim() != 1 or not losses.is_floating_point():
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise InvalidRequest(
            f"the callable must return one loss per image, shape (B,), got {shape}: pass reduction='none'"
        )
    if id(losses) in tape.sources:
        raise InvalidRequest("the losses were computed from parameters alone: no image has a part in them")
    seen: set[Any] = set()
    stack = [losses.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf is not tape.anchor:
            refuse_leaf(leaf, names)
        stack.extend(following for following, _ in node.next_functions)


def refuse_leaf(leaf: Tensor, names: Mapping[int, str]) -> None:
    """Refuse a leaf of the graph that is a parameter."""
    if id(leaf) in names:
        raise InvalidRequest(
            f"{names[id(leaf)]!r}: it is used in a way that cannot be seen (a compiled module, a custom "
            "autograd function, or a tensor made before the step), so its gradient cannot be bounded"
        )
    if isinstance(leaf, nn.Parameter):
        raise InvalidRequest(
            f"a parameter of shape {tuple(leaf.shape)} is not one of the model's, so its gradient would not "
            "be bounded: make it a part of the model, or freeze it"
        )
