"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's anchors, models and projects out of the tests, and the tests out of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("SFUMATO_MODELS", str(tmp_path_factory.mktemp("models")))
        yield


@pytest.fixture(scope="session")
def testdata() -> Callable[[str], Path]:
    """Return a path below SFUMATO_TESTDATA (default ../shared/data), or skip where it is absent."""
    root = Path(os.environ.get("SFUMATO_TESTDATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"needs {name} under SFUMATO_TESTDATA, which is not on this machine")
        return path

    return find
