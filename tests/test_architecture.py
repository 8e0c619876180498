"""The house keeps its shape; each check is shown to fail when the rule is broken on purpose."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "sfumato"
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def modules() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), path.read_text()


# The import contract


def _contract(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--config", tree / "pyproject.toml", "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_contract_holds(copy: Path) -> None:
    result = _contract(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/errors.py", "import sfumato.vision.boxes"),
        ("vision/boxes.py", "import sfumato.redaction.settings"),
        ("data/catalogue.py", "import sfumato.redaction.settings"),
        ("data/catalogue.py", "import sfumato.vision.boxes"),
        ("redaction/settings.py", "import sfumato.cli.main"),
        ("redaction/settings.py", "import sfumato.report.claims"),
        ("report/claims.py", "import sfumato.cli.main"),
        ("audit/run.py", "import sfumato.training.sampling"),
        ("audit/run.py", "import sfumato.redaction.settings"),
        ("audit/run.py", "import torch"),
        ("training/plan.py", "import sfumato.redaction.settings"),
        ("redaction/settings.py", "import sfumato.training.settings"),
        ("core/project.py", "import sfumato.training.run"),
        ("core/project.py", "import sfumato.queries.api"),
        ("queries/model.py", "import sfumato.redaction.settings"),
        ("queries/model.py", "import sfumato.vision.boxes"),
        ("training/plan.py", "import sfumato.queries.model"),
        ("core/claims.py", "import torch"),
        ("core/gate.py", "import cv2"),
        ("redaction/settings.py", "import ultralytics"),
        ("training/detect/loss.py", "import ultralytics.utils.loss"),
        ("vision/export.py", "import ultralytics"),
    ],
)
def test_the_import_contract_fails_when_it_is_broken(copy: Path, file: str, line: str) -> None:
    path = copy / "src" / "sfumato" / file
    path.write_text(path.read_text() + f"\n{line}\n")
    assert _contract(copy).returncode != 0


# Heavy things load late


def _loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_core_loads_neither_torch_nor_pixels() -> None:
    core = [f"sfumato.core.{path.stem}" for path in (SOURCE / "core").glob("*.py") if path.stem != "__init__"]
    loaded = _loaded("import " + ", ".join(core))
    assert "pydantic" in loaded  # the check sees what is loaded
    assert not loaded & {
        "torch",
        "cv2",
        "PIL",
        "av",
        "onnxruntime",
        "click",
        "rich",
        "numpy",
        "dp_accounting",
        "psycopg",
    }


def test_importing_sfumato_loads_nothing_heavy() -> None:
    heavy = {"numpy", "pydantic", "cv2", "av", "PIL", "torch", "onnxruntime", "click", "rich", "sqlite3"}
    assert not _loaded("import sfumato") & heavy


def test_help_loads_no_more_than_click() -> None:
    loaded = _loaded("from sfumato.cli.main import cli; cli.main(['--help'], standalone_mode=False)")
    assert not loaded & {"numpy", "pydantic", "cv2", "av", "PIL", "torch", "onnxruntime", "rich", "sqlite3"}


def test_listing_plugins_loads_nothing_heavy() -> None:
    loaded = _loaded(
        "from sfumato.vision.detectors import CATALOGUE as a; from sfumato.redaction.covers import "
        "CATALOGUE as b; from sfumato.data.readers import CATALOGUE as d; "
        "from sfumato.audit.attacks import CATALOGUE as f; "
        "from sfumato.training.models import CATALOGUE as e; "
        "[c.load(n).summary for c in (a, b, d, e, f) for n in c.names]"
    )
    assert not loaded & {"cv2", "av", "PIL", "torch", "onnxruntime", "ultralytics", "pyarrow", "yaml"}


# Only the gate charges


def charging_calls(source: str) -> list[str]:
    """Calls of the ledger's reserve, settle and void; a permit's settle is the public way."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            receiver = ast.unparse(node.func.value)
            if node.func.attr in ("reserve", "void") or (
                node.func.attr == "settle" and "permit" not in receiver
            ):
                found.append(f"{receiver}.{node.func.attr}")
    return found


def test_only_the_gate_charges_the_ledger() -> None:
    charging = {name for name, source in modules() if charging_calls(source)}
    assert charging == {"core/gate.py"}


def test_the_check_sees_a_way_round_the_gate() -> None:
    assert charging_calls("project.ledger.reserve({}, event)")
    assert charging_calls("book.settle(3, receipt='x')")
    assert not charging_calls("permit.settle([])")


# One source of randomness


RANDOM = {"random", "secrets", "numpy.random", "uuid"}
#: ledger.py names a new book; it draws no noise.
MAY_DRAW = {"core/entropy.py", "core/ledger.py"}


def randomness(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in RANDOM]
        elif isinstance(node, ast.ImportFrom) and node.module in RANDOM:
            found.append(node.module)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in (
            "np.random",
            "numpy.random",
            "os.urandom",
            "torch.rand",
            "torch.randn",
            "cv2.randn",
            "cv2.randu",
        ):
            found.append(ast.unparse(node))
    return found


def test_randomness_comes_from_one_place() -> None:
    drawing = {name for name, source in modules() if randomness(source)}
    assert drawing == MAY_DRAW


@pytest.mark.parametrize(
    "line", ["import random", "from secrets import token_bytes", "x = np.random.normal()", "os.urandom(3)"]
)
def test_the_check_sees_other_randomness(line: str) -> None:
    assert randomness(line)


# Sizes


def too_long(source: str, lines: int = 60) -> list[str]:
    """Functions whose body, docstring aside, is longer than `lines`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and (body[-1].end_lineno or 0) - body[0].lineno + 1 > lines:
                found.append(node.name)
    return found


def too_many_arguments(source: str, most: int = 8) -> list[str]:
    """Functions that should take a settings object; commands of the CLI take one per option.

    What stands in for a function of torch (`@handles(F.conv2d)`) has that one's arguments.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not any(
            "handles" in ast.dump(d) for d in node.decorator_list
        ):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len([name for name in names if name not in ("self", "cls")]) > most:
                found.append(node.name)
    return found


def test_files_and_functions_stay_small() -> None:
    for name, source in modules():
        assert len(source.splitlines()) <= 600, name
        assert not too_long(source), (name, too_long(source))
        if not name.startswith("cli/"):
            assert not too_many_arguments(source), (name, too_many_arguments(source))


def test_the_size_checks_see_what_is_too_big() -> None:
    assert too_long("def f():\n" + "    x = 1\n" * 61)
    assert not too_long("def f():\n" + "    x = 1\n" * 60)
    assert too_many_arguments(f"def f({', '.join(f'a{i}' for i in range(9))}): pass")
