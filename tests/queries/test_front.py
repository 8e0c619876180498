"""The room's front door: its names, and what opening it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sfumato.queries
from sfumato.core.errors import InvalidRequest, MissingExtra, UnknownName
from sfumato.core.project import Project

ROOM = Path(sfumato.queries.__file__).parent


def test_every_name_resolves() -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'sfumato[queries]'")
    assert sorted(sfumato.queries.__all__) == list(sfumato.queries.__all__)
    for name in sfumato.queries.__all__:
        assert getattr(sfumato.queries, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Querry'"):
        sfumato.queries.Querry  # noqa: B018


@pytest.mark.parametrize("module", ["", ".model", ".plan", ".explain", ".standing", ".script", ".wording"])
def test_importing_a_part_loads_no_engine(module: str) -> None:
    heavy = ("duckdb", "ibis", "sqlglot", "pandas", "polars", "pyspark", "opendp", "psycopg", "cv2", "torch")
    code = f"import sys, sfumato.queries{module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_project_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("duckdb", "ibis", "pyarrow", "sqlglot"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'sfumato[queries]'")
    project = Project.init(tmp_path / "p", name="p")
    assert project.questions().purpose == "not declared"
    with pytest.raises(UnknownName, match="did you mean 'duckdb'"):
        project.questions(engine="duckdbb")
    with pytest.raises(InvalidRequest, match="no question to price"):
        project.questions().price([])
    monkeypatch.setattr("sfumato.core.plugins.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"sfumato\[queries\]"):
        project.questions()
