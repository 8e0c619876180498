"""`sfumato ledger show|plan|verify|prove|check-proof|raise|approve|move`."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

import click

from sfumato.cli.output import emit, json_option, note, project_here, table
from sfumato.core.blocks import MARK, split
from sfumato.core.book import Entry
from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.ledger import Balance, Ledger
from sfumato.core.numbers import brief, rational, text

if TYPE_CHECKING:
    from sfumato.core.outlook import Point

#: How the part of a share that is spent is drawn: nothing to all of it.
BARS = "_.-:=+*#@"
COLUMNS = 40
#: Of a population with more blocks than this, those that spent most are shown; --json has all.
BLOCKS = 8


@click.group("ledger")
def command() -> None:
    """Show or verify the project's privacy ledger.

    \b
    Examples:
      sfumato ledger show
      sfumato ledger plan --gaussian 20
      sfumato ledger verify
      sfumato ledger raise residents --reason "ethics board decision 12"
      sfumato ledger approve residents
    """


@command.command("show")
@click.option("--last", default=20, show_default=True, type=click.IntRange(0), help="How many rows to show.")
@json_option
def show(last: int, as_json: bool) -> None:
    """Show budgets, what is left of them, and the latest rows.

    \b
    Examples:
      sfumato ledger show
      sfumato ledger show --last 100
    """
    from sfumato.core.outlook import timeline

    project = project_here()
    project.actor.require("read")
    try:
        ledger = project.ledger
    except PolicyRefused as refusal:  # who is to approve a raise has to see it first
        if project.policy.roles is None:
            raise
        note(f"Nothing is released until sfumato.toml and the ledger agree: {refusal}")
        ledger = project.book()
    rows, points = list(ledger.entries()), list(timeline(ledger))
    if as_json:
        emit(
            {
                "ledger": ledger.id,
                "rows": len(rows),
                "head": ledger.head().hash,
                "populations": ledger.populations(),
                "shares": [_balance_data(balance) for balance in ledger.balances()],
                "timeline": [_point_data(point) for point in points],
                "entries": [row.to_data() for row in rows[len(rows) - min(last, len(rows)) :]],
            }
        )
        return
    click.echo(f"Ledger {ledger.id}: {len(rows)} rows, head {ledger.head().hash[:16]}")
    _show_balances(ledger)
    shown = {f"{item.population}/{item.share}" for item in _shown(ledger.balances())}
    _show_lines([point for point in points if point.share in shown], len(rows))
    if last:
        click.echo()
        spent = {point.row: brief(point.epsilon) for point in points}
        table(
            ("row", "when (UTC)", "what", "spent", "about"),
            [_line(row, spent.get(row.seq, "")) for row in rows[-last:]],
        )


def _show_lines(points: list[Point], rows: int) -> None:
    """Draw what each share had spent, from the first row of the ledger (left) to the last (right)."""
    shares = dict.fromkeys(point.share for point in points)
    if not shares:
        return
    click.echo()
    width, drawn = min(COLUMNS, rows), []
    for share in shares:
        mine, line, at, part = [point for point in points if point.share == share], "", 0, None
        for column in range(width):
            while at < len(mine) and mine[at].row <= (column + 1) * rows / width:
                part, at = mine[at].part, at + 1
            line += " " if part is None else BARS[min(len(BARS) - 1, math.ceil(part * (len(BARS) - 1)))]
        drawn.append((share, f"|{line}|", brief(mine[-1].epsilon)))
    table(("share", f"spent over rows 1 to {rows}", "epsilon"), drawn)


def _point_data(point: Point) -> dict[str, Any]:
    return {
        "row": point.row,
        "kind": point.kind,
        "at": point.at,
        "share": point.share,
        "spent_epsilon": brief(point.epsilon),
        "spent_delta": brief(point.delta),
        "part": round(point.part, 6),
    }


def _show_balances(ledger: Ledger) -> None:
    balances = ledger.balances()
    if not balances:
        click.echo("No population has a budget here yet; filters such as redaction need none.")
        return
    click.echo()
    rows = []
    for item in _shown(balances):
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
    blocks = Counter(split(item.population)[0] for item in balances if MARK in item.population)
    for population, count in blocks.items():
        shares = len({item.share for item in balances if split(item.population)[0] == population})
        if count > BLOCKS * shares:
            click.echo(f"{population}: {count // shares} blocks; the {BLOCKS} that spent most are shown.")


def _shown(balances: list[Balance]) -> list[Balance]:
    """Return the balances to print: all, but of many blocks those that spent most."""
    result, groups = list[Balance](), dict[tuple[str, str], list[Balance]]()
    for item in balances:
        groups.setdefault((split(item.population)[0], item.share), []).append(item)
    for group in groups.values():
        most = sorted(group, key=lambda item: -item.spent_epsilon)[:BLOCKS] if len(group) > BLOCKS else group
        result += [item for item in group if item in most]
    return result


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


def _line(row: Entry, spent: str) -> tuple[str, str, str, str, str]:
    about, group = row.share, row.body.get("with", ())
    if "of" in row.body:
        about += f": with row {row.body['of']}"
    elif row.kind == "reserve":
        plan = row.body.get("plan", {})
        about = f"{plan.get('mechanism', '')}, {plan.get('guarantee', '')}, for {plan.get('purpose', '')}"
        about += f", {row.body['event']['kind']} on {row.share}" if row.share else ""
        about += f": {plan['about']['reason']}" if "about" in plan else ""
        named = ", ".join(group) if len(group) <= 4 else f"{len(group)} more accounts"
        about += f" and {named}" if group else ""
    elif row.kind == "claim":
        about = f"the run of row {row.share} is taken up again, after {row.body['steps']} steps"
    elif row.kind == "moved":
        about = f"to {row.body['to']}"
    elif row.kind == "refusal":
        about = f"{row.body['action']}, for {row.body['purpose']}, by {row.body['rule'] or 'the policy'}"
    elif row.kind == "proposal":
        about += f": epsilon {row.body['wanted']['epsilon']}, {row.body['reason']}"
    elif row.ref is not None:
        about = f"row {row.ref}" + (f" ({row.body['reason']})" if "reason" in row.body else "")
    return str(row.seq), row.body.get("at", "")[:19].replace("T", " "), row.kind, spent, about


@command.command("plan")
@click.option("--gaussian", multiple=True, metavar="NOISE", help="How many more with this noise multiplier?")
@click.option("--laplace", multiple=True, metavar="NOISE", help="The same for Laplace noise.")
@click.option(
    "--train",
    nargs=2,
    multiple=True,
    metavar="RATE NOISE",
    help="How many DP-SGD steps at this rate and noise?",
)
@click.option("--block", default="", metavar="NAME", help="What could be charged to this block alone?")
@json_option
def plan_command(
    gaussian: tuple[str, ...],
    laplace: tuple[str, ...],
    train: tuple[tuple[str, str], ...],
    block: str,
    as_json: bool,
) -> None:
    """Say what could still be done with what is left of each share.

    Each line would be admitted now, by itself; nothing is charged. A noise multiplier is the noise's standard
    deviation (Laplace: its scale) over the sensitivity. In a share of kind sum a line is one plan, fixed as a
    whole, that takes all of the delta that is left. A population with blocks is answered for a release that
    charges all of them: the block with the least room decides.

    \b
    Examples:
      sfumato ledger plan
      sfumato ledger plan --gaussian 20
      sfumato ledger plan --train 0.01 1.1
    """
    from sfumato.core.outlook import Questions, outlook

    asked = {
        "gaussian": tuple(rational(value, name="--gaussian") for value in gaussian),
        "laplace": tuple(rational(value, name="--laplace") for value in laplace),
        "training": tuple(
            (rational(rate, name="--train RATE"), rational(noise, name="--train NOISE"))
            for rate, noise in train
        ),
    }
    questions = Questions(**asked) if any(asked.values()) else Questions()  # type: ignore[arg-type]
    project = project_here()
    project.actor.require("read")
    found = outlook(project.ledger, questions, block)
    if as_json:
        emit({"shares": [item.to_data() for item in found]})
        return
    if not found:
        click.echo("No population has a budget here yet: declare one in sfumato.toml.")
    for index, item in enumerate(found):
        if index:
            click.echo()
        whole = f", all {item.blocks} blocks (least left: {item.tightest})" if item.blocks > 1 else ""
        click.echo(
            f"{item.population}/{item.share} ({item.kind}){whole}: left epsilon {item.left_epsilon}, "
            f"delta {item.left_delta}"
        )
        table(("", "could still be done", "one of these"), [("", a.question, a.value) for a in item.answers])


@command.command("verify")
@json_option
def verify_command(as_json: bool) -> None:
    """Read the whole ledger again and check that every rule was kept.

    Checks the chain of hashes, every charge against its event, every total, every limit, and that the book
    is not older than its anchor or than a receipt kept by the project. Exit code 5 when something is wrong.

    \b
    Example:
      sfumato ledger verify
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
@json_option
def raise_command(population: str, reason: str, as_json: bool) -> None:
    """Raise a population's budget to what sfumato.toml now says.

    Where the policy declares [roles], this proposes the raise, and another owner approves it. Shares that are
    open keep their terms; declare a new share for the added budget.

    \b
    Example:
      sfumato ledger raise residents --reason "ethics board decision 12"
    """
    from sfumato.core import raising

    project = project_here()
    if project.policy.roles is None:
        changed = raising.raise_alone(project, population, reason=reason)
        wanted = project.policy.populations[population]
        if as_json:
            emit(_raise_data(population, None, text(wanted.epsilon), text(wanted.delta), raised=changed))
            return
        click.echo(
            f"{population} now has epsilon {text(wanted.epsilon)}, delta {text(wanted.delta)}. "
            + ("The reason is recorded." if changed else "That is what the ledger had: nothing was changed.")
        )
        return
    proposal = raising.propose(project, population, reason=reason)
    amounts = proposal.body["wanted"]
    if as_json:
        emit(_raise_data(population, proposal.seq, amounts["epsilon"], amounts["delta"], raised=False))
        return
    click.echo(
        f"Proposed in row {proposal.seq}: epsilon {amounts['epsilon']}, delta {amounts['delta']} for "
        f"{population}. It takes effect when another owner runs: sfumato ledger approve {population} "
        f"--row {proposal.seq}"
    )


def _raise_data(
    population: str, row: int | None, epsilon: str, delta: str, *, raised: bool
) -> dict[str, Any]:
    return {"population": population, "row": row, "epsilon": epsilon, "delta": delta, "raised": raised}


@command.command("approve")
@click.argument("population")
@click.option(
    "--row", type=click.IntRange(1), help="The proposal that you read; a newer one is not approved."
)
@json_option
def approve_command(population: str, row: int | None, as_json: bool) -> None:
    """Approve the raise of a population's budget that another owner proposed.

    Approves the newest proposal, and only where sfumato.toml still says exactly the amounts of it.

    \b
    Example:
      sfumato ledger approve residents --row 7
    """
    from sfumato.core import raising

    proposal = raising.approve(project_here(), population, row=row)
    amounts = proposal.body["wanted"]
    if as_json:
        emit(_raise_data(population, proposal.seq, amounts["epsilon"], amounts["delta"], raised=True))
        return
    click.echo(
        f"{population} now has epsilon {amounts['epsilon']}, delta {amounts['delta']}, as proposed in row "
        f"{proposal.seq}. The reason: {proposal.body['reason']}"
    )


@command.command("move")
@click.option("--to", "url", required=True, help="postgresql://user@host/database; it must hold no ledger.")
@json_option
def move_command(url: str, as_json: bool) -> None:
    """Move the ledger into PostgreSQL, where several machines share it.

    Copies every row in order, verifies both books, closes the old one for good and sets url under [ledger]
    in sfumato.toml. Give the password by ~/.pgpass or PGPASSWORD: it is never written anywhere.

    \b
    Example:
      sfumato ledger move --to postgresql://sfumato@db.example/privacy
    """
    from sfumato.core.book_postgres import has_password
    from sfumato.core.files import write_whole
    from sfumato.core.move import advice, move, with_url
    from sfumato.core.policy import FILE_NAME

    project = project_here()
    project.actor.require("move")  # the owner's alone
    done = move(project.book(), url)
    path = project.root / FILE_NAME
    edited = with_url(path.read_text(encoding="utf-8"), done.to)
    if edited is not None:
        write_whole(path, edited, mode=path.stat().st_mode & 0o777)
    if as_json:
        emit(
            {
                "moved_to": done.to,
                "rows": done.verified.rows,
                "head": done.verified.head,
                "policy": bool(edited),
            }
        )
        return
    click.echo(f"Moved {done.verified.rows} rows to {done.to}; the old book is closed.")
    click.echo(f"{path.name} now names the new place." if edited else f"Now {advice(done.to)}")
    if has_password(url):
        note("The URL was stored without its password: give it by ~/.pgpass or PGPASSWORD from now on.")


@command.command("prove")
@click.argument("row", type=click.IntRange(1))
@click.option("--size", type=click.IntRange(1), help="Prove it for the ledger's first SIZE rows.")
def prove_command(row: int, size: int | None) -> None:
    """Print a proof that a row is in the ledger, for someone who holds only the ledger's root.

    The proof is one JSON object with some 17 hashes for 100,000 rows (a Merkle path, RFC 9162).

    \b
    Example:
      sfumato ledger prove 17 > row-17.proof.json
    """
    ledger = project_here().book()
    proof = ledger.prove(row, size)
    emit({**proof.to_data(), "root": ledger.root(proof.size)})


@command.command("check-proof")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--root", required=True, help="The root that you trust; the one in the file proves nothing.")
@json_option
def check_proof_command(file: TextIO, root: str, as_json: bool) -> None:
    """Check what `ledger prove` printed against a root; needs no project. Exit code 5 where it fails.

    FILE may be "-". The root is that of the ledger's first rows, as many as the proof names.

    \b
    Example:
      sfumato ledger prove 17 | sfumato ledger check-proof - --root 5f1c...
    """
    import json

    from sfumato.core.merkle import Proof

    try:
        data = json.load(file)
    except ValueError as error:
        raise InvalidRequest(
            f"{file.name} does not read as JSON: give what `sfumato ledger prove` printed"
        ) from error
    proof = Proof.from_data(data)
    proof.verify(root)
    if as_json:
        emit({"proved": True, "ledger": proof.ledger, "seq": proof.seq, "size": proof.size, "row": proof.row})
        return
    click.echo(f"Row {proof.seq} ({proof.row[:16]}) is in the ledger {proof.ledger} of {proof.size} rows.")
