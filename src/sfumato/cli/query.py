"""`sfumato query`: answers about the crowd, charged before their noise is drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.access import access_from, passphrase_option
from sfumato.cli.output import emit, json_option, note, project_here

if TYPE_CHECKING:
    from sfumato.queries.answer import Answer
    from sfumato.queries.api import Questions
    from sfumato.queries.model import Terms
    from sfumato.queries.plan import Planned

#: Options that become terms of the same name.
TERMS = (
    "epsilon",
    "target_error",
    "delta",
    "population",
    "share",
    "groups",
    "rows",
    "mechanism",
    "private_keys",
    "non_negative",
    "integers",
)


@click.command("query")
@click.argument("statements", metavar="[SQL]...", nargs=-1)
@click.option(
    "-f",
    "--file",
    "script",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Questions from a file, with a semicolon after each; - is standard input.",
)
@click.option("--purpose", default="", metavar="P", help="What the answer is for, of the policy.")
@click.option("--epsilon", help="What each question may cost; exact, as in 0.5 or 1/3.")
@click.option(
    "--target-error",
    type=float,
    metavar="W",
    help="In place of --epsilon: the least cost at which every count and sum is within W, 95 times of 100.",
)
@click.option("--delta", help="Delta of Gaussian noise and private groups.  [default: the share's]")
@click.option("--population", default="", metavar="P", help="Whose budget.  [default: the only one]")
@click.option("--share", default="", metavar="S", help="Which part of it.  [default: the only one]")
@click.option(
    "--groups", type=click.IntRange(1), help="In how many groups one person counts.  [default: the policy's]"
)
@click.option(
    "--rows", type=click.IntRange(1), help="How many of their rows count in each.  [default: the policy's]"
)
@click.option(
    "--mechanism",
    type=click.Choice(["auto", "laplace", "gaussian"]),
    default="auto",
    show_default=True,
    help="Which noise; auto takes the one with the smaller error.",
)
@click.option(
    "--private-keys", is_flag=True, help="Choose groups privately, where their values are not declared."
)
@click.option("--non-negative", is_flag=True, help="Counts below 0 become 0.")
@click.option("--no-integers", is_flag=True, help="Do not round counts to whole numbers.")
@click.option(
    "--engine",
    default="",
    metavar="E",
    help="What counts: duckdb, postgres or spark.  [default: by where the table is]",
)
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the answer as CSV."
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the answer as SVG; with --explain, the error that other prices would buy.",
)
@click.option(
    "--explain", is_flag=True, help="Say what it would cost and how exact it would be; charge nothing."
)
@passphrase_option
@json_option
def command(statements: tuple[str, ...], **options: Any) -> None:
    """Ask about tables of people, and get answers about the crowd.

    SQL is an ordinary SELECT of counts, sums, means or quantiles. The answer is noisy, so that nobody can
    tell from it whether any one person is in the table; it is paid from the people's budget before noise is
    drawn. The same question again costs nothing. Several questions are priced together first, and if they
    do not all fit, none is asked. Without SQL, on a terminal, a shell opens.

    \b
    Examples:
      sfumato query "SELECT junction, COUNT(*) FROM flow GROUP BY junction" --epsilon 0.5
      sfumato query "SELECT AVG(speed) FROM flow WHERE hour = 8" --epsilon 0.1 --explain
      sfumato query "SELECT hour, COUNT(DISTINCT vehicle) FROM flow GROUP BY 1" --target-error 50
      sfumato query -f monday.sql --purpose traffic-planning --epsilon 0.2 --json
      sfumato query "SELECT hour, COUNT(*) FROM flow GROUP BY 1" --epsilon 0.5 --csv h.csv --plot h.svg
      sfumato query
    """
    from sfumato.core.plugins import need

    if options["epsilon"] is not None and options["target_error"] is not None:
        raise click.UsageError("Give --epsilon or --target-error: one follows from the other.")
    asked = _statements(statements, options)
    need("a private query", ("duckdb", "ibis", "pyarrow", "sqlglot"), "queries")
    project = project_here()
    settings: dict[str, Any] = {"purpose": options["purpose"], "engine": options["engine"]}
    settings["access"] = access_from(options["passphrase_fd"])
    if not asked:
        from sfumato.cli.query_shell import Shell

        Shell(project, settings, _terms(options)).run()
        return
    questions = project.questions(**settings)
    try:
        planned = [questions.plan(one, _terms(options)) for one in asked]
        _writable(planned, options)
        if options["explain"]:
            _explain(questions, planned, options)
        else:
            _answer(questions, planned, options)
    finally:
        project.close()


def _statements(given: tuple[str, ...], options: dict[str, Any]) -> list[str]:
    """Return the questions; none: a shell is asked for."""
    script = options["script"]
    if script is None and not given:
        wanted = [name for name in ("as_json", "csv_file", "plot_file", "explain") if options[name]]
        if wanted or not sys.stdin.isatty():
            raise click.UsageError(
                'Give a question, as in sfumato query "SELECT COUNT(*) FROM flow", or -f FILE, where - is '
                "standard input."
            )
        return []
    from sfumato.core.plugins import need

    need("a private query", ("duckdb", "ibis", "pyarrow", "sqlglot"), "queries")
    from sfumato.queries.script import statements

    texts = list(given)
    if script is not None:
        texts.append(sys.stdin.read() if str(script) == "-" else _read(script))
    found = [one for text in texts for one in statements(text)]
    if not found:
        raise click.UsageError("There is no question in it.")
    if len(found) > 1 and (options["csv_file"] or options["plot_file"]):
        raise click.UsageError("--csv and --plot go with one question; --json holds the answers to several.")
    return found


def _read(script: Path) -> str:
    try:
        return script.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{script} is no text in UTF-8: save it as that.") from error


def _terms(options: dict[str, Any]) -> Terms:
    from sfumato.queries.api import terms_of

    values = {**options, "integers": not options["no_integers"]}
    return terms_of(None, {name: values[name] for name in TERMS})


def _explain(questions: Questions, planned: list[Planned], options: dict[str, Any]) -> None:
    explained = [questions.explain(one) for one in planned]
    together = questions.price(planned)
    if options["plot_file"]:
        _write(options["plot_file"], explained[0].to_svg())
    if options["as_json"]:
        emit(
            {
                "status": "explained",
                "exit_code": 0,
                "questions": [one.to_data() for one in explained],
                "together": together.to_data(),
            }
        )
        return
    for one in explained:
        click.echo(f"{one}\n")
    if len(planned) > 1:
        click.echo(f"Together: {together}")


def _answer(questions: Questions, planned: list[Planned], options: dict[str, Any]) -> None:
    from sfumato.cli.query_show import answer_data, show

    _all_fit(questions, planned)
    done: list[dict[str, Any]] = []
    for one in planned:
        if len(planned) > 1 and not options["as_json"]:
            click.echo(f"{one.plan.parameters['question']}")
        try:
            answer = questions.run(one)
        except (Exception, KeyboardInterrupt):
            if done:
                note(f"{len(done)} of {len(planned)} questions were answered; asked again, they cost nothing")
            raise
        left = questions.price([one])
        done.append(answer_data(answer, one, left))
        if not options["as_json"]:
            show(answer, left)
        _files(answer, options)
    if options["as_json"]:
        emit({"status": "done", "exit_code": 0, "answers": done})


def _all_fit(questions: Questions, planned: list[Planned]) -> None:
    """Refuse several questions as a whole, where the budget has no room for all; one is refused by the gate.

    Raises:
        BudgetSpent: nothing was charged.
    """
    if len(planned) < 2:
        return
    from sfumato.core.errors import BudgetSpent

    together = questions.price(planned)
    if not together.fits:
        raise BudgetSpent(together.refusal())


def _files(answer: Answer, options: dict[str, Any]) -> None:
    if options["csv_file"]:
        answer.to_csv(options["csv_file"])
    if options["plot_file"]:
        from sfumato.queries.plots import draw

        _write(options["plot_file"], draw(answer))


def _writable(planned: list[Planned], options: dict[str, Any]) -> None:
    """Refuse what could not be written or drawn, before anything is charged.

    Raises:
        UsageError: there is no such folder, or no such picture.
    """
    for path in (options["csv_file"], options["plot_file"]):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"There is no folder {path.parent} to write {path.name} into.")
    if options["plot_file"] and not options["explain"] and len(planned[0].query.keys) > 2:
        raise click.UsageError("--plot shows one or two keys, and this question has more: use --csv.")


def _write(path: Path, picture: str) -> None:
    from sfumato.core.files import write_whole

    write_whole(path, picture)
