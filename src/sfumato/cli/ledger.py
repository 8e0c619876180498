"""`sfumato ledger show|verify|raise|approve`."""

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
      sfumato ledger approve residents
    """


@command.command("show")
@click.option("--last", default=20, show_default=True, type=click.IntRange(0), help="How many rows to show.")
@json_option
def show(last: int, as_json: bool) -> None:
    """Show budgets, what is left of them, and the latest rows."""
    project = project_here()
    project.actor.require("read")
    ledger = project.ledger
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
    elif row.kind == "refusal":
        about = f"{row.body['action']}, for {row.body['purpose']}, by {row.body['rule'] or 'the policy'}"
    elif row.kind == "proposal":
        about += f": epsilon {row.body['wanted']['epsilon']}, {row.body['reason']}"
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

    Where the policy declares [roles], this proposes the raise, and another owner approves it. Shares that are
    open keep their terms; declare a new share for the added budget.
    """
    from sfumato.core import raising

    project = project_here()
    if project.policy.roles is None:
        changed = raising.raise_alone(project, population, reason=reason)
        wanted = project.policy.populations[population]
        click.echo(
            f"{population} now has epsilon {text(wanted.epsilon)}, delta {text(wanted.delta)}. "
            + ("The reason is recorded." if changed else "That is what the ledger had: nothing was changed.")
        )
        return
    proposal = raising.propose(project, population, reason=reason)
    amounts = proposal.body["wanted"]
    click.echo(
        f"Proposed in row {proposal.seq}: epsilon {amounts['epsilon']}, delta {amounts['delta']} for "
        f"{population}. It takes effect when another owner runs: sfumato ledger approve {population}"
    )


@command.command("approve")
@click.argument("population")
def approve_command(population: str) -> None:
    """Approve the raise of a population's budget that another owner proposed.

    Approves the newest proposal, and only where sfumato.toml still says exactly the amounts of it.
    """
    from sfumato.core import raising

    proposal = raising.approve(project_here(), population)
    amounts = proposal.body["wanted"]
    click.echo(
        f"{population} now has epsilon {amounts['epsilon']}, delta {amounts['delta']}, as proposed in row "
        f"{proposal.seq}. The reason: {proposal.body['reason']}"
    )
