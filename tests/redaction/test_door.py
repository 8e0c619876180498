"""Which project rules: the one that the files lie in, from wherever one works."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.core.project import Project
from sfumato.redaction.door import opened, ruling


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("one", "two", "away")}
    for name, root in made.items():
        root.mkdir()
        if name != "away":
            Project.init(root, name=name)
    monkeypatch.chdir(made["away"])
    return made


def ruler(*files: Path) -> str:
    project = ruling(*files)
    return "" if project is None else project.policy.project.name


def test_the_input_and_the_output_decide(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    away, one, two = (roots[name] / "deep" / "a.jpg" for name in ("away", "one", "two"))
    assert ruler(away, away) == ""
    assert ruler(away, one) == ruler(one, away) == ruler(one, one) == "one"
    assert ruler(away, roots["one"]) == "one"
    monkeypatch.chdir(roots["two"])
    assert ruler(away, away) == "two"
    assert ruler(away, one) == ruler(one, away) == "one"
    with pytest.raises(InvalidRequest, match="lie in different projects"):
        ruler(two, one)
    with opened(None, away, one) as (gate, root):
        assert root == roots["one"].resolve()
        assert gate.policy is not None


def test_a_link_leads_to_where_the_data_lies(roots: dict[str, Path]) -> None:
    (roots["one"] / "a.jpg").write_bytes(b"x")
    link = roots["away"] / "link.jpg"
    link.symlink_to(roots["one"] / "a.jpg")
    assert ruler(link) == "one"
