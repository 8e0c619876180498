"""`sfumato data`: add, compare, verify and export datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.access import access_from, passphrase_option
from sfumato.cli.data_retain import retain_command
from sfumato.cli.data_view import view_command
from sfumato.cli.output import emit, json_option, note, project_here, table

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.add import Look
    from sfumato.data.catalogue import Catalogue
    from sfumato.data.diff import Change
    from sfumato.data.store import Store
    from sfumato.data.version import Version

#: So many names are printed; --json has all.
NAMED = 8


@click.group("data")
def command() -> None:
    """Add, compare, verify and export datasets.

    Data enters under the policy: what [datasets.NAME] keep does not list never reaches the store, people
    become pseudonyms, and every version stays as it is. NAME stands for its newest version; NAME@2 and
    NAME@HASH for one.

    \b
    Examples:
      sfumato data add clinic visits.csv --unit patient_id --explain
      sfumato data add clinic visits.csv --unit patient_id --population patients
      sfumato data list
      sfumato data diff clinic@1 clinic@2
      sfumato data verify
      sfumato data export clinic -o clinic-export --purpose research
    """


@command.command("add")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--unit", metavar="COLUMN", default="",
    help="Who a row or picture is about: a column or field, or folder, file, name:REGEX for pictures.",
)  # fmt: skip
@click.option("--population", metavar="P", default="", help="Whose privacy budget pays: one of the policy's.")
@click.option(
    "--keep", metavar="COLUMN", multiple=True,
    help="Keep this only. Repeatable; never more than the policy's list.  [default: the policy's list]",
)  # fmt: skip
@click.option("--reader", metavar="NAME", default="", help="coco, csv, image-folder, parquet, yolo.  [default: told by the path]")  # fmt: skip  # noqa: E501
@click.option("--explain", is_flag=True, help="Show what would enter, what would be dropped and why; write nothing.")  # fmt: skip  # noqa: E501
@passphrase_option
@json_option
def add_command(
    name: str, path: Path, explain: bool, passphrase_fd: int | None, as_json: bool, **options: Any
) -> None:
    """Add a folder of pictures, a table or an annotated dataset as the next version of NAME.

    The source is never changed. Rows or pictures without a privacy unit are refused. Metadata inside picture
    files is always dropped; what the pictures show is not hidden: use `sfumato redact` for that.

    \b
    Examples:
      sfumato data add clinic visits.csv --unit patient_id --keep age --keep diagnosis --explain
      sfumato data add gate photos/ --unit folder
      sfumato data add gate photos/ --unit "name:([a-z0-9]+)_"
      sfumato data add street annotations.json --unit file
    """
    from sfumato.data.add import add, look
    from sfumato.data.door import Request

    project = project_here("curate")
    keep = tuple(word.strip() for value in options.pop("keep") for word in value.split(","))
    request = Request(dataset=name, path=path, keep=keep, **options)
    if explain:
        _show_look(name, look(project.policy, request), as_json)
        return
    from sfumato.redaction.images.strip import stripped

    catalogue, store = _opened(project, passphrase_fd)
    added = add(catalogue, store, project.policy, request, strip=stripped)
    version = added.version
    if as_json:
        failures = [{"name": one, "reason": why} for one, why in added.failures]
        emit(_data(catalogue, version) | _look_data(added.look) | {"new": added.new, "failures": failures})
    else:
        for line in _look_lines(added.look, "was"):
            click.echo(line)
        if added.new:
            click.echo(f"Added {version.spec}: {_size(version)}, hash {version.hash[:16]}.")
        else:
            click.echo(f"{version.spec} holds the same already; nothing was added.")
        if store.by_person and added.look.rows and added.look.rules.partition == "whole":
            note("Every person's rows are stored on their own, so that the vault can forget them one by one.")
        if not version.facts.populations:
            note("No population: nothing that needs a privacy budget can be released from it.")
    added.check()


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the datasets, each with its newest version.

    \b
    Example:
      sfumato data list --json
    """
    catalogue = _looked()
    newest = [catalogue.versions(name)[-1] for name in catalogue.names()]
    if as_json:
        emit({"datasets": [_data(catalogue, version) for version in newest]})
        return
    if not newest:
        click.echo("No dataset yet. Add one: sfumato data add NAME PATH --unit COLUMN")
        return
    rows = [
        (v.dataset, v.label, _size(v), v.facts.unit, ", ".join(v.facts.populations) or "-") for v in newest
    ]
    table(("dataset", "newest", "holds", "unit", "populations"), rows)


@command.command("versions")
@click.argument("name")
@json_option
def versions_command(name: str, as_json: bool) -> None:
    """List a dataset's versions, oldest first.

    \b
    Example:
      sfumato data versions clinic
    """
    catalogue = _looked()
    found = catalogue.versions(name, cuts=True)
    if as_json:
        emit({"versions": [_data(catalogue, version) for version in found]})
        return
    rows = []
    for one in found:
        state = "usable" if (reason := catalogue.retired(one)) is None else f"retired: {reason}"
        when = one.created[:19].replace("T", " ")
        rows.append((one.label, one.hash[:16], when, one.facts.reader, _size(one), state))
    table(("version", "hash", "when (UTC)", "made by", "holds", "state"), rows)


@command.command("show")
@click.argument("version")
@json_option
def show_command(version: str, as_json: bool) -> None:
    """Show one version: what it holds, whose it is, what was dropped, what was tested.

    \b
    Example:
      sfumato data show clinic@1
    """
    catalogue = _looked()
    found = catalogue.find(version)
    if as_json:
        items = [{"path": i.path, "name": i.name, "bytes": i.bytes, "rows": i.rows} for i in found.items]
        emit(_data(catalogue, found) | {"facts": found.facts.to_data(), "items": items})
        return
    facts = found.facts
    click.echo(f"{found.spec}, hash {found.hash}")
    click.echo(f"Holds: {_size(found)}; made by: {facts.reader}; {found.created} UTC")
    if (reason := catalogue.retired(found)) is not None:
        click.echo(f"Retired: {reason}")
    click.echo(f"Privacy unit: {facts.unit}; populations: {', '.join(facts.populations) or 'none'}")
    click.echo(f"Purposes: {', '.join(facts.purposes) or 'any that the policy declares'}")
    for parent in found.parents:
        click.echo(f"Made from: {catalogue.by_hash(parent).spec} ({parent[:16]})")
    if facts.columns:
        click.echo(f"Columns: {', '.join(f'{name} ({kind})' for name, kind in facts.columns)}")
    for line in _what(facts.kept, facts.dropped, facts.generalised, "was"):
        click.echo(line)
    for line in _tested(facts.tested):
        click.echo(line)


@command.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--key", metavar="COLUMN", default="", help="Match rows by this column.  [default: the unit]")
@passphrase_option
@json_option
def diff_command(old: str, new: str, key: str, passphrase_fd: int | None, as_json: bool) -> None:
    """Show which pictures and rows were added, removed and changed between versions.

    Pictures are matched by path, rows by the key: a row lost and a row gained are, where their key is the
    same, one row changed.

    \b
    Example:
      sfumato data diff clinic@1 clinic@2
    """
    from sfumato.data.diff import diff

    catalogue, store = _opened(project_here("read"), passphrase_fd)
    before, after = catalogue.find(old), catalogue.find(new)
    result = diff(store, before, after, key=key)
    if as_json:
        emit({"old": before.hash, "new": after.hash, "same": result.empty} | result.to_data())
        return
    click.echo(f"From {before.spec} to {after.spec}:")
    for word, names in (("added", result.columns_added), ("removed", result.columns_removed)):
        if names:
            click.echo(f"columns {word}: {', '.join(names)}")
    for what, change in (("items", result.items), (f"rows, by {result.key}", result.rows)):
        for line in _change(what, change):
            click.echo(line)
    if result.gone:
        note(f"{result.gone} pieces are of people who were erased, and are not compared.")
    if result.empty:
        click.echo("nothing differs")


@command.command("verify")
@click.argument("names", nargs=-1)
@json_option
def verify_command(names: tuple[str, ...], as_json: bool) -> None:
    """Hash every version and every stored item again, and follow every lineage.

    Exit code 5 when something is missing or was changed.

    \b
    Example:
      sfumato data verify
    """
    from sfumato.core.versions import RETENTION, retired
    from sfumato.data.check import verify
    from sfumato.data.recording import recorded

    project = project_here("read")
    known = recorded(project)  # before the opening, which records what the ledger does not know
    over = retired(project.ledger, RETENTION)
    result = verify(*_opened(project), names, ledger=known, over=over)
    if as_json:
        counts = {"versions": result.versions, "items": result.items, "bytes": result.bytes}
        emit({"verified": True, **counts, "loose": list(result.loose), "overdue": list(result.overdue)})
        return
    click.echo(f"The data verifies: {result.versions} versions, {result.items} items, {result.bytes} bytes.")
    if result.loose:
        note(
            f"{len(result.loose)} stored items belong to no version; an add that was stopped leaves such. "
            "Remove them: sfumato data sweep"
        )
    if result.overdue:
        note(
            f"{len(result.overdue)} stored items are of versions whose time is over; a run that was stopped "
            "left them. Remove them: sfumato data retain"
        )


@command.command("sweep")
@json_option
def sweep_command(as_json: bool) -> None:
    """Remove what an add that was stopped left in the store.

    Refused while a version is being added. Needs no passphrase.

    \b
    Example:
      sfumato data sweep
    """
    from sfumato.data.sweep import sweep

    project = project_here("curate")
    removed = sweep(*_opened(project))
    if as_json:
        emit({"removed": list(removed)})
        return
    click.echo(f"Removed {len(removed)} stored items that belonged to no version.")


@command.command("export")
@click.argument("version")
@click.option(
    "-o", "--output", "target", metavar="FOLDER", required=True, type=click.Path(path_type=Path),
    help="Folder to write; it must not exist.",
)  # fmt: skip
@click.option("--purpose", metavar="P", help="What it is for: a purpose of the policy.")
@click.option(
    "--only",
    type=click.Choice(["rows", "croissant"]),
    default=None,
    help="Write the data or the description only.",
)
@click.option(
    "--format", "form", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True,
    help="How a table is written.",
)  # fmt: skip
@click.option("--license", "licence", metavar="URL", help="Under which licence; goes into the description.")
@passphrase_option
@json_option
def export_command(
    version: str, target: Path, passphrase_fd: int | None, as_json: bool, **options: Any
) -> None:
    """Write a version and its Croissant description into a new folder, with a receipt.

    An export is a release: the policy must allow the action "export" for the purpose, and the ledger records
    it. What leaves is personal data, as it was minimised at the door.

    \b
    Examples:
      sfumato data export clinic -o clinic-export --purpose research
      sfumato data export clinic@1 -o card --only croissant --purpose research
    """
    from sfumato.core.gate import UNDECLARED
    from sfumato.data.export import Wish, export
    from sfumato.data.use import use_in

    project = project_here()
    catalogue, store = _opened(project, passphrase_fd)
    gate = project.gate()
    used = use_in(catalogue, store, gate, version, options["purpose"] or UNDECLARED, "export")
    found = used.version
    licence = options["licence"]
    wish = Wish(
        only=options["only"] or "",
        form=options["form"],
        terms={"license": licence} if licence else {},
    )
    receipt = export(gate, used, target, wish)
    if as_json:
        guarantee = receipt.body["guarantee"]
        said = {
            "version": found.hash,
            "folder": str(target),
            "guarantee": guarantee,
            "digest": receipt.digest,
        }
        emit(said | {"facts": receipt.body["facts"]})
        return
    click.echo(f"Exported {found.spec} to {target}: {len(receipt.outputs)} files, and receipt.json.")
    left = len(used.decision.withdrawn) if used.decision is not None else 0
    if left:
        who = "1 person was" if left == 1 else f"{left} people were"
        note(f"{who} left out for want of consent to {used.purpose!r}.")
    click.echo(f"Guarantee: {receipt.guarantee}. {receipt.body['guarantee']['statement']}")


@command.command("retire")
@click.argument("version")
@click.option("--reason", required=True, help="Why; it stays in the catalogue.")
@json_option
def retire_command(version: str, reason: str, as_json: bool) -> None:
    """Mark a version as no longer usable; its history stays.

    \b
    Example:
      sfumato data retire clinic@1 --reason "wrong export"
    """
    catalogue, _ = _opened(project_here("curate"))
    found = catalogue.find(version)
    catalogue.retire(found, reason)
    if as_json:
        emit(_data(catalogue, found))
        return
    click.echo(f"{found.spec} is retired. Its data and its history stay.")


command.add_command(retain_command)


def _looked() -> Catalogue:
    """Return the catalogue to look at; needs no key."""
    from sfumato.data.opening import open_catalogue

    return open_catalogue(project_here("read"))


def _opened(project: Project, passphrase_fd: int | None = None) -> tuple[Catalogue, Store]:
    from sfumato.data.opening import open_data

    return open_data(project, access_from(passphrase_fd))


def _data(catalogue: Catalogue, version: Version) -> dict[str, Any]:
    facts = version.facts
    return {
        "dataset": version.dataset,
        "version": version.label,
        "hash": version.hash,
        "created": version.created,
        "reader": facts.reader,
        "unit": facts.unit,
        "populations": list(facts.populations),
        "purposes": list(facts.purposes),
        "parents": list(version.parents),
        "rows": facts.rows,
        "items_count": len(version.items),
        "subjects": facts.subjects,
        "retired": catalogue.retired(version),
    }


def _size(version: Version) -> str:
    facts = version.facts
    pictures = sum(item.home.path.startswith("pictures/") for item in version.items)
    counts = [(facts.rows, "row"), (pictures, "picture"), (facts.subjects, "subject")]
    return ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in counts if count) or "nothing"


def _show_look(name: str, seen: Look, as_json: bool) -> None:
    if as_json:
        emit({"dataset": name, "written": False} | _look_data(seen))
        return
    for line in _look_lines(seen, "would be"):
        click.echo(line)
    click.echo("Nothing was written.")


def _look_data(seen: Look) -> dict[str, Any]:
    return {
        "reader": seen.reader,
        "unit": seen.rules.unit,
        "population": seen.rules.population,
        "rows": seen.rows,
        "pictures": seen.pictures,
        "subjects": seen.subjects,
        "minimised": seen.minimised.to_data(),
        "tested": seen.tested,
        "left_out": [{"name": one, "why": why} for one, why in seen.left_out],
    }


def _look_lines(seen: Look, tense: str) -> Iterator[str]:
    what = f"{seen.rows} rows" if seen.rows else f"{seen.pictures} pictures"
    yield f"Read as {seen.reader}: {what}, {seen.subjects} subjects (unit: {seen.rules.unit})"
    minimised = seen.minimised
    yield from _what(minimised.kept, minimised.dropped, minimised.generalised, tense)
    if seen.left_out:
        yield f"left out: {_named([f'{one} ({why})' for one, why in seen.left_out])}"
    yield from _tested(seen.tested)


def _what(
    kept: Sequence[str], dropped: Sequence[tuple[str, str]], rules: Sequence[tuple[str, str]], tense: str
) -> Iterator[str]:
    made = dict(rules)
    for name in kept:
        coarse = f"; {tense} generalised: {made[name]}" if name in made else ""
        yield f"  kept     {name}{coarse}"
    for name, why in dropped:
        yield f"  dropped  {name}: {why}"


def _tested(result: dict[str, Any]) -> Iterator[str]:
    """Yield the disclosure checks; always as a test, never as a promise."""
    if not result:
        return
    alike = ", ".join(result["quasi_identifiers"])
    yield (
        f"tested: k = {result['k']}: the smallest group of people alike in {alike} has {result['k']}; "
        f"{result['groups_of_one']} of {result['groups']} groups are one person"
    )
    for name, value in result["l"].items():
        yield f"tested: l = {value}, t = {result['t'][name]:.3f} for {name}"
    yield f"  {result['limits']}"


def _change(what: str, change: Change) -> Iterator[str]:
    for word in ("added", "removed", "changed"):
        count, which = getattr(change, word), getattr(change, f"which_{word}")
        if count:
            yield f"{what}: {count} {word}: {_named(which)}"


def _named(names: Sequence[str]) -> str:
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


command.add_command(view_command)
