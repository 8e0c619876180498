"""Every command and snippet in the documentation runs, and every link leads somewhere.

Fences: ```python blocks of a page run in order in one namespace; of a ```console block every line that begins
with "$ " runs. `needs=NAME` after the language skips a block where NAME is missing. A block with
`append=FILE` is appended to that file where it stands. A block that only shows something uses another
language (text, toml).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:|#)([^)#]+)(?:#[^)]*)?\)")
#: Set-up and long commands that the tests cannot run inside themselves; `.ci/run` runs them, or their targets
#: are checked to exist.
OUTSIDE = re.compile(r"^(make|git clone|cd|pip install|source|\.venv/bin/pip|\. )")


@dataclass(frozen=True)
class Snippet:
    language: str
    needs: frozenset[str]
    append: str
    body: str

    def commands(self) -> list[str]:
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]


def snippets(text: str) -> list[Snippet]:
    return [
        Snippet(
            language,
            frozenset(re.findall(r"needs=(\w+)", info)),
            "".join(re.findall(r"append=([\w.]+)", info)),
            body,
        )
        for language, info, body in FENCE.findall(text)
    ]


def runnable(page: Path) -> bool:
    return any(s.language in ("python", "console") for s in snippets(page.read_text()))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documentation speaks of."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from demo import picture, video
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("docs")
    (folder / "photos").mkdir()
    picture(folder / "photos")
    video(folder / "walk.mp4", frames=20)
    data = Path(os.environ.get("SFUMATO_TESTDATA", ROOT.parent / "shared" / "data"))
    street = data / "images" / "bus.jpg"
    shutil.copy(street if street.exists() else folder / "photos" / "phone.jpg", folder / "street.jpg")
    if (model := data / "models" / "yolo26n_e2e_640.onnx").exists():
        shutil.copy(model, folder / "yolo26n.onnx")
    return folder


def available(needs: frozenset[str], folder: Path) -> bool:
    have = {"yolo26": (folder / "yolo26n.onnx").exists()}
    return all(have.get(name, _installed(name)) for name in needs)


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _run(command: list[str] | str, folder: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONWARNINGS": "error",
    }
    result = subprocess.run(
        command, cwd=folder, shell=isinstance(command, str), env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


def run_page(text: str, folder: Path) -> None:
    """Run a page: its commands one by one where they stand, its Python as one program at the end."""
    program = []
    for snippet in snippets(text):
        if not available(snippet.needs, folder):
            continue
        if snippet.append:
            with (folder / snippet.append).open("a") as file:
                file.write(snippet.body)
        elif snippet.language == "python":
            program.append(snippet.body)
        elif snippet.language == "console":
            for command in snippet.commands():
                if not OUTSIDE.match(command):
                    _run(command, folder)
    if program:
        _run([sys.executable, "-c", "\n".join(program)], folder)


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda p: p.name)
def test_the_page_runs(page: Path, workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(workplace, folder)
    run_page(page.read_text(), folder)


@pytest.mark.parametrize(
    "bad", ["```python\nimport sfumato.nothing\n```", "```console\n$ sfumato redcat\n```"]
)
def test_a_broken_snippet_is_found(bad: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_page(bad, tmp_path)


def test_set_up_commands_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for snippet in snippets(page.read_text()):
            for command in snippet.commands():
                if command.startswith("make "):
                    assert set(command.split("#")[0].split()[1:]) <= targets, (page.name, command)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_module_docstring_example_runs() -> None:
    """Examples in public docstrings are doctests."""
    import doctest
    import importlib

    run = 0
    for path in sorted((ROOT / "src" / "sfumato").rglob("*.py")):
        if ">>>" not in path.read_text():
            continue
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, name
        run += result.attempted
    assert run > 20
