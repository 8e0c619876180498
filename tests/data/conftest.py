"""Vaults for the tests; the `file` wrapping, because scrypt costs half a second on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.core.project import Project
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access

POLICY = """
[project]
name = "clinic"
[purposes.research]
actions = ["redact"]
"""


@pytest.fixture
def outside(tmp_path: Path) -> Access:
    """A key file outside the project."""
    return Access(options={"path": str(tmp_path / "outside" / "master.key")})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    Project.init(tmp_path / "project").ledger.close()
    (tmp_path / "project" / "sfumato.toml").write_text(POLICY)
    return Project(tmp_path / "project")


@pytest.fixture
def vault(project: Project, outside: Access) -> Vault:
    return Vault.init(project.root, "file", outside)


@pytest.fixture
def found() -> Callable[[Path, bytes], list[str]]:
    """Return the files under a folder that hold some bytes, as they are or as hex."""

    def search(folder: Path, needle: bytes) -> list[str]:
        forms = (needle, needle.hex().encode(), needle.hex().upper().encode())
        return [
            str(path.relative_to(folder))
            for path in sorted(folder.rglob("*"))
            if path.is_file() and any(form in path.read_bytes() for form in forms)
        ]

    return search
