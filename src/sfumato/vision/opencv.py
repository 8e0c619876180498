"""OpenCV, or what to do where it does not load."""

from __future__ import annotations

import importlib
from typing import Any

from sfumato.core.errors import InvalidRequest, MissingExtra


def opencv() -> Any:
    """Return the module `cv2`.

    Raises:
        MissingExtra: no OpenCV package is installed.
        InvalidRequest: it is installed, but a system library that it needs is not, or two OpenCV packages
            have overwritten each other.
    """
    try:
        module = importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        raise MissingExtra("reading and scaling pictures", ["opencv-python"], "") from error
    except ImportError as error:
        raise InvalidRequest(
            f"OpenCV is installed but does not load: {error}. On Debian and Ubuntu run: apt-get install "
            "libgl1 libglib2.0-0. On Fedora: dnf install mesa-libGL glib2. Where no system package may be "
            "installed: pip uninstall -y opencv-python && pip install opencv-python-headless"
        ) from error
    if not hasattr(module, "resize"):
        raise InvalidRequest(
            "OpenCV is damaged: its module holds no functions, as happens when one of two OpenCV packages "
            "was uninstalled. Run: pip install --force-reinstall --no-deps opencv-python"
        )
    return module
