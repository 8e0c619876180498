"""The front door: its names, and what opening it costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import sfumato

NAMES = (
    "Boxes",
    "Gate",
    "Ledger",
    "Plan",
    "Policy",
    "Project",
    "Receipt",
    "Redacted",
    "Redactor",
    "Settings",
    "__version__",
    "errors",
    "queries",
    "redact",
    "redact_files",
    "training",
)

#: Nothing of this may be imported by `import sfumato`.
HEAVY = ("PIL", "av", "click", "cv2", "numpy", "onnxruntime", "pydantic", "rich", "scipy", "torch", "typing")


def problems(module: Any) -> list[str]:
    """Return what is wrong with a module's public names."""
    found = [f"{name} does not resolve" for name in module.__all__ if not hasattr(module, name)]
    if sorted(module.__all__) != list(module.__all__) or len(set(module.__all__)) != len(module.__all__):
        found.append("__all__ is not sorted or repeats a name")
    if set(module.__dir__()) != set(module.__all__):
        found.append("dir() and __all__ differ")
    return found


def test_every_name_resolves() -> None:
    assert problems(sfumato) == []
    assert tuple(sfumato.__all__) == NAMES
    assert sfumato.errors is importlib.import_module("sfumato.core.errors")
    exec("from sfumato import *", {})


def test_the_check_can_fail() -> None:
    twin = SimpleNamespace(__all__=["Plan", "Polcy"], Plan=1, __dir__=lambda: ["Plan"])
    twin.__dir__ = lambda: ["Plan"]
    assert problems(twin) == ["Polcy does not resolve", "dir() and __all__ differ"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'sfumato' has no attribute 'redcat'"):
        sfumato.redcat  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(sfumato.__file__).read_text())
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) | {"__version__"} == set(sfumato.__all__)
    for name, home in seen.items():
        value = getattr(importlib.import_module(home or ""), name)
        assert value is getattr(sfumato, name) or isinstance(value, ModuleType)


def loaded_by(statement: str, *names: str) -> list[str]:
    """Return which modules are loaded after a statement in a fresh interpreter without site packages."""
    code = f"import sys; {statement}; print([name for name in {names!r} if name in sys.modules])"
    source = Path(sfumato.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=source
    )
    return list(ast.literal_eval(result.stdout))


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import sfumato", *HEAVY) == []
    assert loaded_by("import sfumato", "sfumato.core", "sfumato.vision", "sfumato.redaction") == []
    assert loaded_by("import typing", *HEAVY) == ["typing"]  # the check can fail


def test_using_a_name_loads_its_room_only() -> None:
    code = (
        "import sys, sfumato; sfumato.Receipt; print([x for x in ('cv2', 'av', 'PIL') if x in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
