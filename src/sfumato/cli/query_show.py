"""An answer for people in a terminal, and for machines."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click

from sfumato.core.numbers import brief

if TYPE_CHECKING:
    from sfumato.queries.answer import Answer
    from sfumato.queries.plan import Planned
    from sfumato.queries.standing import Standing

#: More rows than this do not help anybody in a terminal.
SHOWN = 200
#: A figure is never cut, however narrow the terminal.
WIDE = 10_000


def answer_data(answer: Answer, planned: Planned, left: Standing) -> dict[str, Any]:
    """Return an answer as plain data."""
    data: dict[str, Any] = json.loads(answer.to_json())
    return {
        "question": planned.plan.parameters["question"],
        **data,
        "budget": {
            "account": left.account,
            "left": brief(left.left, up=False),
            "of": brief(left.budget, up=False),
        },
    }


def show(answer: Answer, left: Standing) -> None:
    """Print an answer, what it cost and what is left."""
    rows = list(answer)[:SHOWN]
    click.echo(_table(answer, rows))
    if (more := len(answer) - len(rows)) > 0:
        click.echo(f"... and {more:,} more groups: --csv FILE or --json has them all.")
    for remark in answer.notes:
        click.echo(f"Note: {remark}")
    remains = f"epsilon {brief(left.left, up=False)} of {brief(left.budget, up=False)} left"
    click.echo(f"{cost(answer)} {left.account}: {remains}.")
    if answer.receipt.endswith(".json"):
        click.echo(f"Receipt: .sfumato/receipts/{answer.receipt}")
    elif answer.receipt:  # it was settled after a crash, by somebody else
        click.echo(f"Receipt: {answer.receipt} of the ledger")


def cost(answer: Answer) -> str:
    """Return what an answer cost, in a sentence.

    It stands before what is left, which is told of the account.
    """
    price = f"epsilon {brief(answer.cost.epsilon)}"
    if answer.cost.delta:
        price += f" at delta {brief(answer.cost.delta)}"
    return f"Answered before ({price}): free." if answer.replayed else f"Cost: {price}."


def _table(answer: Answer, rows: list[dict[str, Any]]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key in answer.keys:
        table.add_column(Text(safe(key)), overflow="fold")
    for figure in answer.figures:
        table.add_column(Text(safe(figure)), justify="right", no_wrap=True)
        table.add_column(Text("95 %"), justify="left", no_wrap=True, style="dim" if terminal else "")
    for row in rows:
        cells = [word(row[key]) for key in answer.keys]
        for figure in answer.figures:
            cells += [number(row[figure], row[f"{figure}_error"]), around(row, figure)]
        table.add_row(*(Text(cell) for cell in cells))
    console = Console(width=WIDE, highlight=False, markup=False, emoji=False, legacy_windows=False)
    with console.capture() as caught:
        console.print(table)
    return "\n".join(line.rstrip() for line in caught.get().splitlines())


def word(value: Any) -> str:
    """Return a key's value, safe to print; an empty one is a total over it."""
    return "total" if value is None else safe(str(value))


def safe(said: str) -> str:
    """Return text in which control characters are spelled out: a group's name may come from the data."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in said)


def number(value: Any, error: float | None) -> str:
    """Return a number with no more digits than its error leaves.

    >>> number(1234, 2.0), number(0.123456, 0.01), number(None, None)
    ('1,234', '0.123', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    places = 3
    if error and math.isfinite(error):
        places = min(max(1 - math.floor(math.log10(error)), 0), 12)
    said = f"{value:,.{places}f}"
    return said.lstrip("-") if not said.strip("-0.,") else said


def around(row: dict[str, Any], figure: str) -> str:
    """Return the 95 % interval of a figure, as +- where it is the same on both sides.

    >>> around({"n": 12, "n_error": 2.8, "n_low": 6, "n_high": 18}, "n")
    '+- 6'
    >>> around({"n": 0, "n_error": 2.8, "n_low": 0, "n_high": 6}, "n")
    '0 .. 6'
    """
    value, error, low, high = (
        row[name] for name in (figure, f"{figure}_error", f"{figure}_low", f"{figure}_high")
    )
    if low is None or high is None:
        return ""
    if value is not None:
        sides = value - low, high - value
        # Whole numbers are rounded, each side by itself.
        near = 1 if isinstance(value, int) else (error or 0.0) / 100
        if abs(sides[1] - sides[0]) <= near:
            return f"+- {number(max(sides), error)}"
    return f"{number(low, error)} .. {number(high, error)}"
