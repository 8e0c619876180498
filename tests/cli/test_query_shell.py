"""The shell of `sfumato query`: driven line by line, and through a terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crossing import crossing

from sfumato.cli.query_shell import Shell, asker, history_file
from sfumato.cli.query_words import Words
from sfumato.core.project import Project
from sfumato.queries.model import Terms

for _package in ("duckdb", "ibis", "pyarrow", "sqlglot"):
    pytest.importorskip(_package, reason=f"needs {_package}: pip install 'sfumato[queries]'")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return crossing(tmp_path)


def typed(*lines: str | type[BaseException]) -> Callable[[str], str]:
    """Return what stands for a person: one line after the other, then the end."""
    left = iter(lines)

    def ask(prompt: str) -> str:
        line = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return ask


def told(project: Project, capsys: pytest.CaptureFixture[str], *lines: str | type[BaseException]) -> str:
    Shell(project, {}, Terms()).run(typed(*lines))
    out, error = capsys.readouterr()
    return out + error


def test_a_session(project: Project, capsys) -> None:
    said = told(
        project,
        capsys,
        ".epsilon 0.5",
        "SELECT junction, COUNT(*) AS n FROM flow",
        "GROUP BY junction;",
        "SELECT junction, COUNT(*) AS n FROM flow GROUP BY 1;",
        ".budget",
        ".quit",
        "SELECT COUNT(*) FROM flow;",
    )
    assert "Say first what each may cost" in said
    assert "Each question may cost epsilon 0.5." in said
    assert said.index("Costs epsilon 0.5.") < said.index("Station") < said.index("Answered before")
    assert said.count("Costs") == 1  # the second is answered already, and after .quit nothing is
    assert re.search(r"drivers/all +0\.5 of 100 +99\.5", said)


def test_what_is_public_is_shown(project: Project, capsys) -> None:
    said = told(project, capsys, ".tables", ".columns flow", ".help")
    assert re.search(r"flow +vehicle +drivers +4 x 2 +5", said)
    assert re.search(r"vehicle +integer +whose a row is", said)
    assert re.search(r"hour +integer +0 to 23", said)
    assert re.search(r"junction +text +Bridge, Harbour, Market, Station", said)
    assert ".columns NAME" in said


def test_explain_asks_nothing(project: Project, capsys) -> None:
    said = told(project, capsys, ".epsilon 1/3", ".explain SELECT COUNT(*) FROM flow;", ".explain", ".budget")
    assert "6. noise" in said
    assert "this needs a question" in said
    assert re.search(r"drivers/all +0 of 100", said)


#: What is typed, and what is said to it.
WRONG: dict[str | type[BaseException], str] = {
    "SELECT MAX(speed) FROM flow;": "one person's value",
    "SELECT COUNT(*) FROM nowhere;": "no dataset 'nowhere'",
    "DROP TABLE flow;": "line 1",
    "SELECT 'open FROM flow;": "quote",
    ".nope": "unknown command '.nope'",
    ".epsilon much": "finite number",
    ".epsilon 0": "above 0",
    ".epsilon -1": "0..",
    ".columns": "a table's name",
    ".columns nowhere": "unknown dataset",
    "\x00;": "no text",
    KeyboardInterrupt: "",
    "": "",
    ";": "",
}


def test_no_error_ends_it(project: Project, capsys) -> None:
    lines = [line for wrong in WRONG for line in (wrong, "")]
    said = told(project, capsys, *lines, ".epsilon 1", "SELECT COUNT(*) AS n FROM flow;")
    for line, says in WRONG.items():
        assert says in said, line
    assert said.count("Cost: epsilon 1.") == 1


def test_a_fault_inside_does_not_end_it_nor_quote_anything(project: Project, capsys, monkeypatch) -> None:
    def fail(self: object, rest: str) -> None:
        raise ZeroDivisionError("patient 7 has flu")

    monkeypatch.setattr(Shell, "_budget", fail)
    said = told(project, capsys, ".budget", ".help")
    assert "ZeroDivisionError" in said
    assert "patient 7" not in said
    assert ".columns NAME" in said


def test_a_budget_that_is_spent_does_not_end_it(project: Project, capsys) -> None:
    said = told(
        project,
        capsys,
        ".epsilon 101",
        "SELECT COUNT(*) FROM flow;",
        ".epsilon 1",
        "SELECT COUNT(*) FROM flow;",
    )
    assert "no room for" in said
    assert "Cost: epsilon 1. drivers/all: epsilon 99 of 100 left." in said


def test_a_command_drops_an_unfinished_question(project: Project, capsys) -> None:
    said = told(project, capsys, "SELECT COUNT(*)", ".tables")
    assert "unfinished question was dropped" in said
    assert "population" in said


def test_a_table_that_changes_is_another_table(project: Project, capsys) -> None:
    """New data is asked anew and pays anew: never the old answer for it, nor under the old version's name."""
    import pyarrow.parquet as pq

    def lines() -> Iterator[str]:
        yield ".epsilon 1"
        yield "SELECT COUNT(*) AS n FROM flow;"
        flow = project.root / "flow.parquet"
        pq.write_table(pq.read_table(flow).slice(0, 600), flow)
        yield "SELECT COUNT(*) AS n FROM flow;"
        yield ".explain SELECT COUNT(*) AS n FROM flow;"

    session, ask = lines(), typed()
    Shell(project, {}, Terms()).run(lambda prompt: next(session, None) or ask(prompt))
    said = capsys.readouterr().out
    assert said.count("Cost: epsilon 1.") == 2
    assert "flow@2" in said


def test_completion_knows_words_tables_columns_and_values(project: Project) -> None:
    words = Words(lambda: project.questions())

    def after(before: str) -> list[str]:
        return [word for word, _ in words.matching(before)]

    assert after("SELECT junc") == ["junction"]
    assert after("SELECT COUNT(*) FROM fl") == ["flow"]
    assert after("... WHERE junction = 'Ha") == ["'Harbour'"]
    assert after("sel") == ["SELECT"]
    assert after(".col") == [".columns"]
    assert after(".columns fl") == ["flow"]
    assert after("") == []


def test_history_is_private(project: Project) -> None:
    os.umask(0o022)
    path = history_file(project)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_prompt_toolkit_plain_lines_are_read(project: Project, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert asker(project, lambda: project.questions()) is input


# Through a terminal


class Terminal:
    """A process at the other end of a pty."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        import pty

        self.said, self._read = "", 0
        self.pid, self._fd = pty.fork()
        if not self.pid:  # the child
            os.chdir(folder)
            os.environ |= {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
            os.execv(sys.executable, [sys.executable, "-m", "sfumato", *arguments])

    def until(self, mark: str, seconds: float = 60) -> str:
        """Read until a mark comes; return what was said since the last one."""
        while (found := self.said.find(mark, self._read)) < 0:
            ready, _, _ = select.select([self._fd], [], [], seconds)
            assert ready, self.said
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # Linux, where the other end closed
                data = b""
            assert data, self.said
            self.said += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        before, self._read = self._read, found + len(mark)
        return self.said[before : self._read]

    def type(self, line: str) -> None:
        os.write(self._fd, line.encode())

    def end(self) -> int:
        """Wait for the process; return its exit code."""
        while select.select([self._fd], [], [], 60)[0]:
            try:
                if not os.read(self._fd, 65536):
                    break
            except OSError:
                break
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(project: Project) -> Iterator[Terminal]:
    pytest.importorskip("pty", reason="needs a system with pseudo-terminals")
    pytest.importorskip("prompt_toolkit", reason="needs prompt_toolkit: pip install 'sfumato[queries]'")
    opened = Terminal("query", "--epsilon", "1", folder=project.root)
    yield opened
    opened.kill()


def test_in_a_terminal(terminal: Terminal, project: Project) -> None:
    terminal.until("sfumato>")
    terminal.type("SELECT COUNT(*) AS n FROM flow WHERE junction = 'Ha")
    terminal.until("'Ha")
    terminal.type("\t")
    terminal.until("rbour'")  # completed
    terminal.type(";\r")
    assert "epsilon 99 of 100 left" in terminal.until("Receipt:")
    terminal.until("sfumato>")
    terminal.type("half a question\x03")  # Ctrl-C empties the line, and ends nothing
    terminal.until("sfumato>")
    terminal.type(".budget\r")
    assert "1 of 100" in terminal.until(" 99")
    terminal.until("sfumato>")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.end() == 0
    (history,) = (project.root / ".sfumato").glob("query-history-*")
    assert ".budget" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
