"""Memory between steps: kept inside, handed back at the end, and left alone where somebody else decides."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sfumato.training import memory
from sfumato.training.memory import hand_back, kept_memory

MB = 2**20

needs_glibc = pytest.mark.skipif(
    not (sys.platform == "linux" and memory._is_glibc()),
    reason="the C library is not glibc, or the environment sets its allocator",
)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def use() -> int:
    """Take 96 MB in blocks that fit the heap, free them, and return what was resident before that."""
    np.ones(20 * MB, np.uint8)  # blocks up to this size come from the heap from now on
    blocks = [np.ones(16 * MB, np.uint8) for _ in range(6)]
    most = resident()
    del blocks
    return most


@needs_glibc
def test_it_is_kept_inside_and_handed_back_by_the_last() -> None:
    use()
    with kept_memory():
        with kept_memory():
            most = use()
            assert resident() > most - 8 * MB
        assert resident() > most - 8 * MB
    assert resident() < most - 64 * MB
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
    assert memory._inside == 0


@needs_glibc
def test_what_lies_free_below_is_handed_back_at_once() -> None:
    with kept_memory():
        most = use()
        hand_back()
        assert resident() < most - 64 * MB


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "1"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")]
)
def test_who_starts_the_program_decides(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("it was set"))
    with kept_memory():
        hand_back()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(memory.os, "confstr", none, raising=False)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("it was set"))
    with kept_memory():
        hand_back()
