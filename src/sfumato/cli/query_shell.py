"""The shell of `sfumato query`: questions one after the other, each with its cost and what is left."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.output import note, table
from sfumato.cli.query_show import safe, show
from sfumato.core.errors import InvalidRequest, SfumatoError, UnknownName
from sfumato.core.numbers import brief, rational
from sfumato.core.project import FOLDER

if TYPE_CHECKING:
    from sfumato.core.column_policy import ColumnSection
    from sfumato.core.project import Project
    from sfumato.queries.api import Questions
    from sfumato.queries.model import Terms

Ask = Callable[[str], str]
PROMPT, MORE = "sfumato> ", "    ...> "
_COMMAND = re.compile(r"\s*\.[a-z]")
HELP = {
    ".budget": "what is left of the people's budget",
    ".tables": "which tables can be asked",
    ".columns NAME": "what is publicly known of a table's columns",
    ".epsilon 0.2": "what each question may cost from here on; alone: what it is now",
    ".explain SQL;": "what a question would do and cost, without asking it",
    ".help": "this",
    ".quit": "leave, as Ctrl-D does",
}


class Shell:
    """Reads questions until it is told to stop; no error ends it.

    Args:
        settings: of `Project.questions`.
        terms: of every question, until `.epsilon` says otherwise.
    """

    def __init__(self, project: Project, settings: Mapping[str, Any], terms: Terms) -> None:
        self._project, self._settings, self._terms = project, dict(settings), terms
        self._commands: dict[str, Callable[[str], None]] = {
            ".budget": self._budget,
            ".tables": self._tables,
            ".columns": self._columns,
            ".epsilon": self._epsilon,
            ".explain": self._explain,
            ".help": self._help,
        }

    def run(self, ask: Ask | None = None) -> None:
        """Read and answer until the end."""
        self._questions()  # what is refused altogether ends the shell before it begins
        ask = ask or asker(self._project, self._questions)
        click.echo("Private questions. A semicolon ends one; .help says more, .quit leaves.")
        if self._terms.epsilon is None and self._terms.target_error is None:
            click.echo("Say first what each may cost, as in: .epsilon 0.1")
        while (said := _said(ask)) is not None:
            if said in (".quit", ".exit"):
                break
            if said:
                self.answer(said)
        self._project.close()

    def answer(self, said: str) -> None:
        """Answer one entry; an error is told, and is the end of the entry alone."""
        from sfumato.cli.problems import explain

        try:
            name, _, rest = said.partition(" ")
            if name.startswith("."):
                self._command(name.rstrip(";").lower(), rest.strip())
            else:
                self._ask(said)
        except KeyboardInterrupt:
            note("stopped; what was charged stands, see .budget")
        except SfumatoError as error:
            note(str(error))
        except Exception as error:  # a shell that ends takes the user's thread with it
            note(explain(error) or f"this went wrong inside ({type(error).__name__}); the shell goes on")

    def _questions(self) -> Questions:
        """Return questions afresh: a table may have changed since the last one."""
        made: Questions = self._project.questions(**self._settings)
        return made

    def _command(self, name: str, rest: str) -> None:
        if name not in self._commands:
            raise UnknownName("command", name, [*self._commands, ".quit"])
        self._commands[name](rest)

    def _ask(self, script: str) -> None:
        from sfumato.queries.script import statements

        for one in statements(script):
            questions = self._questions()
            planned = questions.plan(one, self._terms)
            before = questions.price([planned])
            if before.questions:
                click.echo(f"Costs epsilon {brief(planned.epsilon)}. {before}.")
            show(questions.run(planned), questions.price([planned]))

    def _explain(self, script: str) -> None:
        from sfumato.queries.script import statements

        questions = self._questions()
        for one in statements(script) or _nothing("a question", ".explain SELECT COUNT(*) FROM flow;"):
            click.echo(str(questions.explain(one, self._terms)))

    def _epsilon(self, rest: str) -> None:
        if rest:
            epsilon = rational(rest.rstrip(";").strip(), name="epsilon")
            if not epsilon:
                raise InvalidRequest("epsilon must be above 0: an answer without any cost would be no answer")
            self._terms = replace(self._terms, epsilon=epsilon, target_error=None)
        now = self._terms.epsilon
        click.echo(
            f"Each question may cost epsilon {brief(now)}." if now else "No epsilon is set: .epsilon 0.1"
        )

    def _budget(self, rest: str) -> None:
        rows = [
            (
                f"{one.population}/{one.share}",
                f"{brief(one.spent_epsilon)} of {brief(one.epsilon, up=False)}",
                brief(max(one.epsilon - one.spent_epsilon, one.epsilon * 0), up=False),
            )
            for one in self._project.ledger.balances()
        ]
        if not rows:
            _nothing("a budget", "[populations.NAME] in sfumato.toml")
        table(("share", "epsilon spent", "left"), rows)

    def _tables(self, rest: str) -> None:
        questions, rows = self._questions(), []
        for name in questions.names():
            try:
                found = questions.table(name)
                bounds = f"{found.groups or '-'} x {found.rows or '-'}"
                rows.append((name, found.unit, ", ".join(found.populations), bounds, f"{len(found.kinds)}"))
            except SfumatoError as error:
                rows.append((name, "", "", "", str(error).partition(":")[0][:80]))
        if not rows:
            _nothing("a table", '[datasets.NAME] table = "FILE.parquet" in sfumato.toml')
        table(("table", "unit", "population", "groups x rows", "columns"), rows)

    def _columns(self, rest: str) -> None:
        name = rest.rstrip(";").strip() or _nothing("a table's name", ".columns flow")[0]
        found, rows = self._questions().table(name), []
        for column, kind in found.kinds.items():
            said = "whose a row is" if column == found.unit else _public(found.columns.get(column))
            rows.append((safe(column), kind, said))
        table(("column", "kind", "public"), rows)

    def _help(self, rest: str) -> None:
        click.echo("SELECT ...;  asks. Figures: COUNT(*), COUNT(DISTINCT unit), SUM, AVG, QUANTILE_CONT, ...")
        table(("command", "what it does"), list(HELP.items()))


def _public(declared: ColumnSection | None) -> str:
    """Return what the policy says of a column, in a few words."""
    if declared is None:
        return ""
    if (pair := declared.range or declared.bounds) is not None:
        return f"{pair[0]} to {pair[1]}"
    values = declared.values or ()
    return ", ".join(safe(str(one)) for one in values[:6]) + (", ..." if len(values) > 6 else "")


def _nothing(what: str, way: str) -> list[str]:
    raise InvalidRequest(f"this needs {what}: {way}")


def _said(ask: Ask) -> str | None:
    """Return the next entry: a command, or all lines up to a semicolon or an empty line; None at the end."""
    from sfumato.queries.script import complete

    lines: list[str] = []
    while True:
        try:
            line = ask(MORE if lines else PROMPT)
        except EOFError:
            return None
        except KeyboardInterrupt:
            click.echo("")
            return ""
        if not lines and (not line.strip() or line.lstrip().startswith(".")):
            return line.strip()
        if _COMMAND.match(line):  # no line of SQL begins so
            note("the unfinished question was dropped")
            return line.strip()
        lines.append(line)
        if not line.strip() or complete("\n".join(lines)):
            return "\n".join(lines).strip()


def history_file(project: Project) -> Path | None:
    """Return a private file for what this user typed; None where none can be made."""
    who = str(os.getuid()) if hasattr(os, "getuid") else "me"
    path = project.root / FOLDER / f"query-history-{who}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        path.chmod(0o600)
    except OSError:
        return None
    return path


def asker(project: Project, questions: Callable[[], Questions]) -> Ask:
    """Return what reads a line: with history and completion where prompt_toolkit is installed."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory
    except ImportError:
        return input
    if not sys.stdout.isatty():
        return input
    from sfumato.cli.query_words import Words

    path = history_file(project)
    session: Any = PromptSession(
        history=FileHistory(str(path)) if path is not None else InMemoryHistory(),
        completer=Words(questions).completer(),
        complete_while_typing=False,
        enable_history_search=True,
    )
    return lambda prompt: str(session.prompt(prompt))
