"""ONNX models: sessions that share a machine politely, and fixed input shapes made free."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, MediaError

#: Accelerators tried before the CPU, best first. TensorRT is left out: it builds an engine per input shape.
ACCELERATORS = (
    "CUDAExecutionProvider",
    "MIGraphXExecutionProvider",
    "ROCMExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
)
_CPU = "CPUExecutionProvider"
_OPTIONS: dict[str, dict[str, str]] = {
    # An exhaustive search for the best kernel would run again for every picture size.
    "CUDAExecutionProvider": {"cudnn_conv_algo_search": "HEURISTIC"},
}


def session(model: Path | bytes, *, threads: int = 0) -> Any:
    """Load an ONNX model and return an `onnxruntime.InferenceSession`.

    An accelerator of this machine is used where onnxruntime has one (CUDA, MIGraphX, ROCm, CoreML, DirectML)
    and the CPU otherwise or where the accelerator fails; `SFUMATO_DEVICE=cpu` leaves it alone.

    Args:
        model: a file, or a file's bytes.
        threads: inference threads; 0: one for each core this process may use.

    Raises:
        InvalidRequest: the file cannot be read, or is not an ONNX model that onnxruntime understands.
    """
    import onnxruntime

    data = constant_weights(model if isinstance(model, bytes) else read(model))
    origin = "the model" if isinstance(model, bytes) else f"the model file {str(model)!r}"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads or cores()
    options.inter_op_num_threads = 1
    # A plan of memory for every shape of input held 90 MB more at 608 x 1080, and saved no time.
    options.enable_mem_pattern = False
    if _lean_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    # A waiting thread that spins takes a core from the decoder and the encoder beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen = providers(onnxruntime.get_available_providers())
    problem: Exception = RuntimeError("no execution provider")
    for attempt in dict.fromkeys((tuple(chosen), (_CPU,))):
        try:
            net = onnxruntime.InferenceSession(
                data,
                options,
                providers=[(name, _OPTIONS.get(name, {})) for name in attempt],
                enable_fallback=0,  # its own prints to standard output
            )
            hand_back()
            return net
        except Exception as error:  # onnxruntime's own errors share no base class of theirs
            problem = error
    reason = str(problem).split("\n")[0]
    raise InvalidRequest(
        f"{origin} ({len(data):,} bytes) is damaged or not an ONNX model: {reason}. "
        "Fetch or export it again, and compare its sha256 with the source's."
    ) from problem


def run(net: Any, outputs: Sequence[str] | None, tensor: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Run a session on its one input and return its outputs as float32.

    Raises:
        MediaError: the model fails on an input of this size (memory, perhaps).
    """
    try:
        names = None if outputs is None else list(outputs)
        results = net.run(names, {net.get_inputs()[0].name: tensor})
    except Exception as error:  # onnxruntime's own errors share no base class of theirs
        reason = str(error).split("\n")[0]
        raise MediaError(
            f"the model failed on an input of {tensor.shape[3]}x{tensor.shape[2]} pixels: {reason}. Try "
            "a smaller size, or SFUMATO_DEVICE=cpu where an accelerator is short of memory."
        ) from error
    return [np.asarray(result, np.float32) for result in results]


def let_go(net: Any, tensor: NDArray[Any]) -> None:
    """Give the memory that a session keeps for its next run back to the system.

    Args:
        net: a session whose input sizes are free.
        tensor: the smallest input that it takes.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    with contextlib.suppress(Exception):  # an accelerator may have no such memory: then there is none to give
        net.run(None, {net.get_inputs()[0].name: tensor}, options)
    hand_back()


def hand_back() -> None:
    """Give back to the system what was freed and the C library keeps; Linux alone has a call for that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _lean_arena() -> bool:
    """Have onnxruntime ask for as much memory as is needed, and not for the next power of two.

    One such store is shared by all sessions of this process that ask for it, as ours do. At 608 x 1080 the
    peak is 10 to 20 MB lower, at the same speed.
    """
    import onnxruntime

    try:
        asked = {"max_mem": 0, "arena_extend_strategy": 1}
        rest = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
        kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
        memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(asked | rest))
    except Exception:  # an older onnxruntime, or somebody has registered one already
        return False
    return True


def providers(available: list[str]) -> list[str]:
    """Return the execution providers to try, best first, out of those that onnxruntime has."""
    if os.environ.get("SFUMATO_DEVICE", "").lower() == "cpu":
        return [_CPU]
    return [name for name in ACCELERATORS if name in available] + [_CPU]


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def read(path: Path) -> bytes:
    """Return a model file's bytes.

    Raises:
        InvalidRequest: it is absent, empty or may not be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidRequest(
            f"cannot read the model file {str(path)!r}: {reason}. Give a path to a file."
        ) from error
    if not data:
        raise InvalidRequest(f"the model file {str(path)!r} is empty. Fetch or copy it again.")
    return data


def free_shapes(data: bytes, frees: Callable[[str, int], bool]) -> bytes:
    """Return a model whose declared input and output sizes are free, without the `onnx` package.

    In the file a dimension is a little message: field 1 holds a number, field 2 a symbol. A number is
    overwritten by a symbol of the same length, so that nothing else in the file moves.

    Args:
        data: an ONNX file's bytes.
        frees: called with (name of an input, output or inner value; axis); true where that axis is to be
            free. Names of weights listed among the inputs, as old exporters do, must get false.

    Raises:
        InvalidRequest: the bytes are not an ONNX file.

    Source:
        The wire format of protocol buffers and onnx.proto3 (ModelProto.graph = 7; GraphProto.input = 11,
        output = 12, value_info = 13; ValueInfoProto.name = 1, type = 2; Type.tensor_type = 1;
        Tensor.shape = 2; TensorShapeProto.dim = 1; Dimension.dim_value = 1, dim_param = 2).
    """
    out = bytearray(data)
    symbols = 0
    try:
        for graph in _inside(data, (0, len(data)), 7):
            for field in (11, 12, 13):
                for value in _inside(data, graph, field):
                    name = b"".join(data[a:b] for a, b in _inside(data, value, 1)).decode()
                    dims = [dim for shape in _chain(data, value, 2, 1, 2) for dim in _inside(data, shape, 1)]
                    for axis, (start, end) in enumerate(dims):
                        if end - start < 2 or data[start] != 0x08 or not frees(name, axis):
                            continue
                        width = end - start - 2
                        out[start : start + 2] = bytes((0x12, width))
                        out[start + 2 : end] = _symbol(symbols, width)
                        symbols += 1
    except (IndexError, ValueError) as error:
        raise InvalidRequest(f"not an ONNX file, or a damaged one ({len(data):,} bytes): {error}") from error
    return bytes(out)


def constant_weights(data: bytes) -> bytes:
    """Return a model whose weights are constants: old exporters list them among the inputs as well.

    A runtime must then expect other weights at every run, and can neither fold them nor lay them out for its
    fast kernels: CenterFace takes twice the time. Bytes that are no ONNX file are returned as they are.

    Source:
        onnx.proto3 (ModelProto.graph = 7; GraphProto.initializer = 5, input = 11; TensorProto.name = 8;
        ValueInfoProto.name = 1); ONNX IR, "Graphs": from IR version 4 on, weights need not be inputs.
    """
    try:
        graphs = list(_inside(data, (0, len(data)), 7))
        version = _varint(data, 1)[0] if data[:1] == b"\x08" else 0
        if len(graphs) != 1 or version < 4:
            return data
        start, end = graphs[0]
        weights = {
            bytes(data[a:b]) for one in _inside(data, (start, end), 5) for a, b in _inside(data, one, 8)
        }
        drop = [
            (a, b)
            for a, b in _inside(data, (start, end), 11)
            if {bytes(data[c:d]) for c, d in _inside(data, (a, b), 1)} <= weights
        ]
    except (IndexError, ValueError):
        return data  # the runtime says what is wrong with it
    if not drop:
        return data
    graph = bytearray()
    at = start
    for a, b in drop:
        # In front of a message stand its key (one byte for field 11) and its length.
        graph += data[at : a - 1 - len(_as_varint(b - a))]
        at = b
    graph += data[at:end]
    head = start - len(_as_varint(end - start))
    return data[:head] + _as_varint(len(graph)) + bytes(graph) + data[end:]


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _symbol(number: int, width: int) -> bytes:
    """Return a symbol of `width` letters; each number has its own, since equal ones declare sizes equal."""
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    digits = []
    for _ in range(width):
        number, rest = divmod(number, len(letters))
        digits.append(letters[rest])
    return bytes(digits)


def _chain(data: bytes, span: tuple[int, int], *fields: int) -> list[tuple[int, int]]:
    """Return the spans reached by following `fields` inwards, one level each."""
    spans = [span]
    for field in fields:
        spans = [inner for outer in spans for inner in _inside(data, outer, field)]
    return spans


def _inside(data: bytes, span: tuple[int, int], wanted: int) -> list[tuple[int, int]]:
    """Return the spans of a message's length-delimited fields numbered `wanted`."""
    found = []
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > end:
                raise ValueError("a field reaches past its message")
            if key >> 3 == wanted:
                found.append((at, at + length))
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at `at`, and where it ends."""
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is longer than ten bytes")
