"""timm's models by name, imported when one is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest, MissingExtra, nearest

if TYPE_CHECKING:
    from torch import nn


def build(name: str, *, classes: int, channels: int, pretrained: bool) -> nn.Module:
    """Build a timm model.

    Raises:
        MissingExtra: timm is not installed.
        InvalidRequest: timm cannot be loaded, or has no such model.
    """
    timm = load()
    if not timm.is_model(name):
        near = nearest(name, timm.list_models(pretrained=False))
        hint = f" Did you mean {near!r}?" if near else " `timm.list_models()` lists them."
        raise InvalidRequest(f"timm {timm.__version__} has no model {name!r}.{hint}")
    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels)
    return model


def load() -> ModuleType:
    """Import timm, and say plainly why where it does not load.

    timm imports torchvision, whose binary must match PyTorch's: beside a CPU-only PyTorch, a torchvision
    from another index does not load.
    """
    if importlib.util.find_spec("timm") is None:
        raise MissingExtra("a model of timm", ("timm",), "")
    try:
        return importlib.import_module("timm")
    except Exception as error:  # torchvision raises RuntimeError, OSError or ImportError, as it fails
        if importlib.util.find_spec("torchvision") is None:
            way = "torchvision is not installed: install the one that matches your PyTorch"
        else:
            way = "its torchvision does not fit this PyTorch: install both from the same index"
        raise InvalidRequest(
            f"timm is installed and does not load ({type(error).__name__}: {first_line(error)}); {way}, or "
            "take a model of our own: mnist-cnn, wrn-16-4, resnet18-gn, vit-tiny"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without its full stop."""
    return (str(error).splitlines() or [""])[0].rstrip(".")
