"""Tiny ONNX files written by hand, so that no test needs a package that writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

TinyModel = Callable[..., bytes]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _port(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1, d) if isinstance(d, int) else _field(2, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def write(
    result: NDArray[np.float32],
    *,
    metadata: Mapping[str, str] | None = None,
    inputs: Sequence[int | str] = (1, 3, 64, 64),
    declared: Sequence[int | str] | None = None,
    name: str = "images",
) -> bytes:
    """Return a model that gives `result` whatever it is given."""
    result = np.ascontiguousarray(result, np.float32)
    tensor = b"".join(_field(1, n) for n in result.shape) + _field(2, 1) + _field(8, "k")
    tensor += _field(9, result.tobytes())
    node = _field(1, "k") + _field(2, "output0") + _field(4, "Identity")
    graph = _field(1, node) + _field(2, "tiny") + _field(5, tensor) + _field(11, _port(name, inputs))
    graph += _field(12, _port("output0", result.shape if declared is None else declared))
    model = _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))
    for key, value in (metadata or {}).items():
        model += _field(14, _field(1, key) + _field(2, value))
    return model


@pytest.fixture
def tiny_model() -> TinyModel:
    """Write an ONNX model whose one output is a constant."""
    return write


@pytest.fixture
def no_models(tmp_path, monkeypatch):
    """An empty model cache."""
    monkeypatch.setenv("SFUMATO_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"
