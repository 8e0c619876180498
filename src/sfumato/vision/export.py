"""A `.pt` file made into ONNX, once, by Ultralytics in a process of its own.

Ultralytics is AGPL-3.0, comes with the optional extra `yolo`, changes settings of the process that imports it
and reports usage to its makers. So it is run apart: offline, with a settings folder that is thrown away, and
loading weights only, never code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.core.files import write_whole
from sfumato.vision import models

_MINUTES = 15

#: Read by Ultralytics and PyTorch when they are imported.
_ENVIRONMENT = {
    "YOLO_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "0",
    "ULTRALYTICS_SAFE_LOAD": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # holds for releases of Ultralytics that do not know the line above
    "MPLBACKEND": "Agg",
}


def exported(loaded: models.Loaded) -> bytes:
    """Return the ONNX bytes of a weights file; a `.pt` file is exported once and kept in the model cache.

    Guarantee:
        The cache is keyed by the `.pt` file's content, and a kept file whose own hash has changed is not
        used. Neither this process's environment nor its imports change.

    Args:
        loaded: the weights; anything but a `.pt` file comes back as it is.

    Raises:
        MissingExtra: Ultralytics is not installed.
        InvalidRequest: the export failed, or took longer than 15 minutes.
    """
    if loaded.path.suffix.lower() != ".pt":
        return loaded.data
    key = hashlib.sha256(loaded.data).hexdigest()
    folder = models.folder() / "exported"
    if kept := _kept(folder, key):
        return kept
    if importlib.util.find_spec("ultralytics") is None:
        raise MissingExtra(
            f"reading {loaded.path.name!r}, a PyTorch file,", ["ultralytics (AGPL-3.0)"], "yolo"
        )
    data = _run(loaded)
    write_whole(folder / f"{key}-{hashlib.sha256(data).hexdigest()}.onnx", data)
    return data


def _kept(folder: Path, key: str) -> bytes | None:
    """Return an export made before, if it is whole; its name holds both hashes."""
    for path in sorted(folder.glob(f"{key}-*.onnx")):
        data = path.read_bytes()
        if path.stem == f"{key}-{hashlib.sha256(data).hexdigest()}":
            return data
    return None


def _run(loaded: models.Loaded) -> bytes:
    """Export in a process of its own and return the file's bytes."""
    with tempfile.TemporaryDirectory(prefix="sfumato-export-") as name:
        work = Path(name)
        source, target = work / "weights.pt", work / "exported.onnx"
        source.write_bytes(loaded.data)
        paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
        environment = os.environ | _ENVIRONMENT | {"YOLO_CONFIG_DIR": name, "PYTHONPATH": paths}
        code = "import sys; from sfumato.vision import _ultralytics; _ultralytics.main(*sys.argv[1:])"
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", code, str(source), str(target)],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_MINUTES * 60,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InvalidRequest(
                f"exporting {loaded.path.name!r} took longer than {_MINUTES} minutes. Export it yourself: "
                "yolo export model=FILE.pt format=onnx nms=False"
            ) from error
        if done.returncode or not target.exists():
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            reason = lines[-1] if lines else f"exit code {done.returncode}"
            raise InvalidRequest(
                f"Ultralytics could not export {loaded.path.name!r}: {reason}. Check that it is a YOLO "
                "detection model, or export it yourself: yolo export model=FILE.pt format=onnx nms=False"
            )
        return target.read_bytes()
