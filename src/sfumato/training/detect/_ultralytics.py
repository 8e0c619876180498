"""The only file of this room that touches Ultralytics (AGPL-3.0, the extra `yolo`).

It gives models, and parts of the loss. Training needs the model in this process, so the package is imported
here, unlike in `vision/export.py`. What it changes when it is imported (OpenCV's threads, print formats,
`torch.save`, environment variables) is put back; it is told to stay offline and gets a settings folder that
is thrown away. Its trainer, its data loader and its callbacks are never imported.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.core.errors import InvalidRequest, MissingExtra, MissingModel

_ENVIRONMENT = {
    "YOLO_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "0",
    "YOLO_VERBOSE": "0",
    "ULTRALYTICS_SAFE_LOAD": "1",
}
#: Set by the package when it is imported; left as they were.
_SET = ("NUMEXPR_MAX_THREADS", "TF_CPP_MIN_LOG_LEVEL", "TORCH_CPP_LOG_LEVEL", "KINETO_LOG_LEVEL")


def available() -> bool:
    """Return whether Ultralytics can be imported here: it asks for torchvision's metadata at once."""
    if "ultralytics" in sys.modules:
        return True
    if importlib.util.find_spec("ultralytics") is None:
        return False
    try:
        importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def require() -> None:
    """Import Ultralytics, quietly and offline; nothing that this process can see changes.

    Raises:
        MissingExtra: it, or torchvision, is not installed.
    """
    if "ultralytics.nn.tasks" in sys.modules:
        return
    if not available():
        raise MissingExtra("training a YOLO detector", ["ultralytics (AGPL-3.0)", "torchvision"], "yolo")
    with _undone():
        import ultralytics.cfg
        import ultralytics.nn.tasks

        # In memory only: assigning by the settings' own method would write a file.
        dict.__setitem__(ultralytics.utils.SETTINGS, "sync", False)
        logging.getLogger("ultralytics").setLevel(logging.WARNING)


@contextlib.contextmanager
def _undone() -> Iterator[None]:
    """Put back what importing the package changes for everybody else in the process."""
    import cv2
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="sfumato-yolo-") as folder:
        environment = _ENVIRONMENT | {"YOLO_CONFIG_DIR": folder}
        kept = {name: os.environ.get(name) for name in (*environment, *_SET)}
        threads, printed, save = cv2.getNumThreads(), np.get_printoptions(), torch.save
        opened = Image.open  # its own would fetch a decoder from the network for what is no picture
        shown = vars(torch._tensor_str.PRINT_OPTS).copy()
        os.environ.update(environment)
        try:
            yield
        finally:
            cv2.setNumThreads(threads)
            np.set_printoptions(**printed)
            torch.save, Image.open = save, opened
            vars(torch._tensor_str.PRINT_OPTS).update(shown)
            for name, value in kept.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def build(name: str, classes: int) -> nn.Module:
    """Return an untrained detector from a configuration of the package, such as "yolo26n.yaml".

    Raises:
        MissingExtra: the package is not installed.
        InvalidRequest: it has no such configuration, or not of a detector.
    """
    require()
    from ultralytics.nn.tasks import DetectionModel

    try:
        model = DetectionModel(name, ch=3, nc=classes, verbose=False)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(
            f"Ultralytics has no detector {name!r} ({error}). Give a .pt file, or a name such as yolo26n.yaml"
        ) from error
    return _detector(model, name)


def load(path: Path) -> nn.Module:
    """Read a detector from a `.pt` file: weights and known classes only, never code.

    Raises:
        MissingModel: there is no such file.
        InvalidRequest: it is not a detector of Ultralytics, or was fused for inference.
    """
    if not path.is_file():
        raise MissingModel(f"the detector {str(path)!r} does not exist. Check the path.")
    require()
    from ultralytics.nn.tasks import torch_safe_load

    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=True)
        model = checkpoint.get("ema") or checkpoint["model"]
    except Exception as error:  # whatever a strange file makes the package raise
        raise InvalidRequest(f"{path.name!r} does not read as a detector of Ultralytics: {error}") from error
    if not isinstance(model, nn.Module):
        raise InvalidRequest(f"{path.name!r} holds no model: {type(model).__name__}")
    return _detector(model.float(), path.name)


def _detector(model: Any, name: str) -> nn.Module:
    """Return the model, if it is a plain detector whose layers are all there.

    Raises:
        InvalidRequest: another task, or fused.
    """
    from ultralytics.nn.modules.head import Detect
    from ultralytics.nn.tasks import DetectionModel

    if type(model) is not DetectionModel or type(head(model)) is not Detect:
        raise InvalidRequest(f"{name!r} is not a detector (task detect) but {type(model).__name__}")
    if model.is_fused():
        raise InvalidRequest(f"{name!r} was fused for inference: train from the file that it was made from")
    if getattr(model, "class_weights", None) is not None:
        raise InvalidRequest(f"{name!r} holds class weights, which are counts of somebody's labels")
    return trainable(model)


def trainable(model: nn.Module) -> nn.Module:
    """Return the model with all parameters free, but for a layer of constants that some heads hold as one."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".dfl." not in name)
    return model


def adapted(model: nn.Module, names: Mapping[int, str]) -> nn.Module:
    """Return the detector with an output for each of the classes; what fits is kept, by class name.

    Args:
        model: as loaded.
        names: the classes of the data, by number, without gaps.
    """
    old: Any = model
    if dict(old.names) == dict(names):
        return model
    from ultralytics.nn.tasks import DetectionModel

    fresh: Any = DetectionModel(deepcopy(old.yaml), ch=3, nc=len(names), verbose=False)
    fresh.names = dict(names)
    fresh.load(deepcopy(old), verbose=False)
    return trainable(fresh)


def head(model: nn.Module) -> Any:
    """Return a detector's last module, which holds strides, classes and bins."""
    layers: Any = model.model
    return layers[-1]


def gains() -> dict[str, float]:
    """Return the package's default weights of the parts of the loss: box, cls, dfl."""
    require()
    from ultralytics.cfg import DEFAULT_CFG

    return {name: float(getattr(DEFAULT_CFG, name)) for name in ("box", "cls", "dfl")}


def stock_criterion(model: nn.Module, epochs: int) -> Any:
    """Return the package's own loss for a detector: one number for a whole batch, which couples its pictures.

    For comparison only: nothing here trains with it.
    """
    from ultralytics.cfg import get_cfg

    detector: Any = model
    detector.args = get_cfg(overrides={"epochs": epochs})
    return detector.init_criterion()


def assigner(model: nn.Module, most: int, kept: int | None) -> nn.Module:
    """Return the package's task-aligned assigner, which looks at one picture at a time.

    Args:
        most: anchors a box may take at first.
        kept: anchors it keeps after conflicts are resolved; None: all.
    """
    from ultralytics.utils.tal import TaskAlignedAssigner

    last = head(model)
    made: nn.Module = TaskAlignedAssigner(
        topk=most, topk2=kept, num_classes=last.nc, alpha=0.5, beta=6.0, stride=last.stride.tolist()
    )
    return made


def anchors(feats: list[Tensor], strides: Tensor) -> tuple[Tensor, Tensor]:
    """Return the anchors' centres (A, 2), in cells, and strides (A, 1), in pixels."""
    from ultralytics.utils.tal import make_anchors

    points, steps = make_anchors(feats, strides, 0.5)
    return points, steps


def complete_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the complete IoU of pairs of boxes (N, 4), x1 y1 x2 y2: (N,)."""
    from ultralytics.utils.metrics import bbox_iou

    found: Tensor = bbox_iou(boxes, others, xywh=False, CIoU=True)
    return found.squeeze(-1)


def save(model: nn.Module, path: Path, names: Mapping[int, str]) -> None:
    """Write a detector as a checkpoint that Ultralytics loads; it holds weights, names and nothing of a run.

    Args:
        model: trained; it is copied, and what training left on it is dropped.
        path: file to write.
        names: class names by number.
    """
    from ultralytics import __version__

    plain: Any = deepcopy(model).cpu().float().eval()
    plain.names, plain.args, plain.task = dict(names), {}, "detect"
    for name in ("criterion", "pt_path"):
        if hasattr(plain, name):
            delattr(plain, name)
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    content: dict[str, Any] = {"model": plain, "ema": None, "train_args": {}, "version": __version__}
    content["license"] = "AGPL-3.0"  # of the architecture, and of weights that were made from theirs
    torch.save(content, path)
