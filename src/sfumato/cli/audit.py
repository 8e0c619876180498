"""`sfumato audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.output import emit, json_option, note

if TYPE_CHECKING:
    from sfumato.audit import Claim, Report
    from sfumato.training.run import TrainingRun

#: So many units are drawn from to test the sampler.
UNITS = 2000
#: At which epsilon is told where nobody says.
DELTA = "1e-5"


@click.command("audit", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("receipt", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--noise-multiplier", metavar="X", help="Deviation of the noise over the clip bound.")
@click.option("--rate", metavar="Q", help="The chance of a unit to be in a step, such as 0.01 or 256/60000.")
@click.option("--steps", metavar="T", type=click.IntRange(1), help="How many steps.")
@click.option("--delta", metavar="D", help="At which epsilon is told.  [default: the receipt's, else 1e-5]")
@click.option(
    "--canaries", metavar="N", type=click.IntRange(32, 10_000), default=5000, show_default=True,
    help="How many canaries; more show more, and take longer.",
)  # fmt: skip
@click.option(
    "--confidence", metavar="P", type=click.FloatRange(0.5, 1, max_open=True), default=0.95,
    show_default=True, help="That the lower bound holds.",
)  # fmt: skip
@click.option(
    "-o", "--output", "picture", metavar="AUDIT.svg", type=click.Path(path_type=Path),
    help="Write the result as a picture.",
)  # fmt: skip
@json_option
def command(
    receipt: Path | None,
    delta: str | None,
    canaries: int,
    confidence: float,
    picture: Path | None,
    as_json: bool,
    **mechanism: Any,
) -> None:
    """Attack the training code at given settings: what privacy loss can be shown?

    Plants canaries in a run of the training room's own sampler, clipping and noise, with the settings of
    RECEIPT (of a trained model) or those given, and tries to tell which were in. Prints a lower bound on
    epsilon, the most that so many canaries could show, and the claim; and tests noise, clipping and sampling
    directly. No data and no budget is touched. Exit code 1: something contradicts the claim.

    \b
    Examples:
      sfumato audit --noise-multiplier 4.8 --rate 0.137 --steps 292
      sfumato audit --noise-multiplier 1.1 --rate 256/60000 --steps 4000 -o audit.svg
      sfumato audit model.safetensors.receipt.json --json
    """
    from sfumato.audit import Settings, Subject, audit

    if picture is not None and picture.suffix.lower() != ".svg":
        raise click.BadParameter(f"the picture is an SVG, not {picture.name!r}", param_hint="-o")
    body = _body(receipt, mechanism)
    claim = _claim(body, delta, mechanism)
    code = _training(claim, canaries, body)
    subject = Subject(
        claim, code.step, code.contribution, code.canaries, sample=code.sample, units=code.units
    )
    report = audit(subject, settings=Settings(canaries=code.canaries, confidence=confidence))
    if picture is not None:
        report.write_svg(picture)
    if as_json:
        emit({"exit_code": 0 if report.ok else 1, **report.to_data()})
    else:
        for line in report.lines():
            click.echo(line)
    note("The training code was audited at these settings, not a trained model: see `sfumato audit --help`.")
    click.get_current_context().exit(0 if report.ok else 1)


def _body(receipt: Path | None, mechanism: dict[str, Any]) -> dict[str, Any]:
    """Return the body of the receipt; empty where the options say it all."""
    from sfumato.core.receipt import Receipt

    given = [name for name, value in mechanism.items() if value is not None]
    if receipt is not None and given:
        raise click.UsageError("give a RECEIPT or the mechanism's settings, and not both")
    if missing := [name for name in mechanism if receipt is None and name not in given]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise click.UsageError(f"give a RECEIPT, or the mechanism: {options} missing")
    return Receipt.read(receipt).body if receipt is not None else {}


def _claim(body: dict[str, Any], delta: str | None, mechanism: dict[str, Any]) -> Claim:
    """Read the claim from the receipt or the options."""
    from sfumato.audit import Claim
    from sfumato.audit.subject import delta_of

    if body:
        return Claim.of_receipt(body, delta or delta_of(body) or DELTA)
    return Claim.of(delta=delta or DELTA, **mechanism)


def _training(claim: Claim, canaries: int, body: dict[str, Any]) -> Any:
    """Return the training loop over canaries, with the settings of the receipt's run where there is one."""
    import importlib.util

    from sfumato.audit.run import canaries_for
    from sfumato.core.errors import MissingExtra

    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("auditing the training code", ["torch"], "training")
    from sfumato.training.audited import Rehearsal
    from sfumato.training.settings import TrainingSettings

    parameters = body.get("plan", {}).get("parameters", {})
    kept = {name: parameters[name] for name in ("clipping", "views", "precision") if name in parameters}
    settings = TrainingSettings(
        noise_multiplier=claim.noise_multiplier,
        rate=claim.rate,
        public_size=UNITS,
        steps=claim.steps,
        delta=claim.delta,
        clip=float(parameters.get("clip", 1)),
        **kept,
    )
    return Rehearsal(settings, canaries=canaries_for(claim, canaries))


def audited(run: TrainingRun, canaries: int = 2000) -> Report:
    """Audit the loop at a run's own settings: the guard of `sfumato train --audit`.

    Raises:
        AuditFailed: something contradicts the run's claim.
        InvalidRequest: a run with correlated noise.
    """
    from sfumato.audit import Claim, Settings, Subject, audit
    from sfumato.audit.run import canaries_for
    from sfumato.training.audited import Rehearsal

    planned = run.planned
    event = planned.taken(run.begun) or planned.plan.event
    claim = Claim.of_event(event, planned.delta, unit=planned.unit)
    count = canaries_for(claim, canaries)
    code = Rehearsal(planned.settings, canaries=count, noise_multiplier=planned.noise_multiplier)
    subject = Subject(claim, code.step, code.contribution, count, sample=code.sample, units=code.units)
    return audit(subject, settings=Settings(canaries=count)).require()
