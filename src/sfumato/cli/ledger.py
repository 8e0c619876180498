"""`sfumato ledger show|verify|raise`."""

from __future__ import annotations

from typing import Any

import click

from sfumato.cli.output import emit, json_option, project_here, table
from sfumato.core.book import Entry
from sfumato.core.ledger import Balance, Ledger
from sfumato.core.numbers import brief, text


@click.group("ledger")
def command() -> None:
    """Show or verify the project's privacy ledger.

    \b
    Examples:
      sfumato ledger show
      sfumato ledger verify
      sfumato ledger raise residents --reason "ethics board decision 12"
    """


@command.command("show")
@click.option("--last", default=20, show_default=True, type=click.IntRange(0), help="How many rows to show.")
@json_option
def show(last: int, as_json: bool) -> None:
    """Show budgets, what is left of them, and the latest rows."""
    ledger = project_here().ledger
    rows = list(ledger.entries())
    if as_json:
        emit(
            {
                "ledger": ledger.id,
                "rows": len(rows),
                "head": ledger.head().hash,
                "populations": ledger.populations(),
                "shares": [_balance_data(balance) for balance in ledger.balances()],
                "entries": [row.to_data() for row in rows[len(rows) - min(last, len(rows)) :]],
            }
        )
        return
    click.echo(f"Ledger {ledger.id}: {len(rows)} rows, head {ledger.head().hash[:16]}")
    _show_balances(ledger)
    if last:
        click.echo()
        table(("row", "when (UTC)", "what", "about"), [_line(row) for row in rows[-last:]])


def _show_balances(ledger: Ledger) -> None:
    balances = ledger.balances()
    if not balances:
        click.echo("No population has a budget here yet; filters such as redaction need none.")
        return
    click.echo()
    rows = []
    for item in balances:
        left = max(item.epsilon - item.spent_epsilon, item.epsilon * 0)
        part = float(item.spent_epsilon / item.epsilon) if item.epsilon else 1.0
        bar = "#" * min(20, round(20 * part))
        rows.append(
            (
                f"{item.population}/{item.share}",
                item.kind,
                f"[{bar:<20}]",
                f"{brief(item.spent_epsilon)} of {brief(item.epsilon)}",
                brief(left, up=False),
                brief(item.delta),
            )
        )
    table(("share", "kind", "spent", "epsilon", "left", "delta"), rows)


def _balance_data(item: Balance) -> dict[str, Any]:
    return {
        "population": item.population,
        "share": item.share,
        "kind": item.kind,
        "epsilon": text(item.epsilon),
        "delta": text(item.delta),
        "spent_epsilon": brief(item.spent_epsilon),
        "spent_delta": brief(item.spent_delta),
    }


def _line(row: Entry) -> tuple[str, str, str, str]:
    about = row.share
    if row.kind == "reserve":
        plan = row.body.get("plan", {})
        about = f"{plan.get('mechanism', '')}, {plan.get('guarantee', '')}, for {plan.get('purpose', '')}"
        about += f", {row.body['event']['kind']} on {row.share}" if row.share else ""
    elif row.ref is not None:
        about = f"row {row.ref}" + (f" ({row.body['reason']})" if "reason" in row.body else "")
    return str(row.seq), row.body.get("at", "")[:19].replace("T", " "), row.kind, about


@command.command("verify")
@json_option
def verify_command(as_json: bool) -> None:
    """Read the whole ledger again and check that every rule was kept.

    Checks the chain of hashes, every charge against its event, every total, every limit, and that the book
    is not older than its anchor or than a receipt kept by the project. Exit code 5 when something is wrong.
    """
    from sfumato.core.receipt import Receipt
    from sfumato.core.verify import verify

    project = project_here()
    ledger = project.book()
    for path in sorted(project.receipts.glob("[0-9]*.json")):
        Receipt.read(path).verify_ledger(ledger)
    result = verify(ledger)
    if as_json:
        emit(
            {
                "verified": True,
                "rows": result.rows,
                "releases": result.releases,
                "unfinished": list(result.unfinished),
                "anchored": result.anchored,
                "head": result.head,
            }
        )
        return
    click.echo(
        f"The ledger verifies: {result.rows} rows, {result.releases} releases, head {result.head[:16]}"
    )
    if result.unfinished:
        click.echo(
            f"{len(result.unfinished)} releases were charged and never finished (rows "
            f"{', '.join(map(str, result.unfinished[:10]))}); their charge stands."
        )


@command.command("raise")
@click.argument("population")
@click.option("--reason", required=True, help="Why; it stays in the ledger.")
def raise_command(population: str, reason: str) -> None:
    """Raise a population's budget to what sfumato.toml now says.

    Shares that are open keep their terms; declare a new share for the added budget.
    """
    from sfumato.core.errors import UnknownName

    project = project_here()
    declared = project.policy.populations
    if population not in declared:
        raise UnknownName("population", population, declared)
    wanted = declared[population]
    changed = project.book().open_population(
        population,
        epsilon=wanted.epsilon,
        delta=wanted.delta,
        unit=wanted.unit,
        relation=wanted.relation,
        reason=reason,
    )
    click.echo(
        f"{population} now has epsilon {text(wanted.epsilon)}, delta {text(wanted.delta)}. "
        + ("The reason is recorded." if changed else "That is what the ledger had: nothing was changed.")
    )
