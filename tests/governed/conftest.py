"""Where sequences run: a folder in memory, and a clock that tests may set."""

from __future__ import annotations

import datetime as real
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sequences.world import Clock, World


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is room, since each step waits for the disk many times; else on disk."""
    shm = Path("/dev/shm")
    roomy = os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 1 << 29
    folder = Path(tempfile.mkdtemp(prefix="sfumato-", dir=shm if roomy else tmp_path_factory.mktemp("w")))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def clock(memory: Path, monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """The clock of every part of Sfumato, and a state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(memory / "state"))
    for name, module in list(sys.modules.items()):
        if name.startswith("sfumato.") and getattr(module, "datetime", None) is real.datetime:
            monkeypatch.setattr(module, "datetime", Clock)
    return Clock


@pytest.fixture
def world(clock: type[Clock], memory: Path) -> type[World]:
    """The class of worlds."""
    return World
