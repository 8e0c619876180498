"""`sfumato train`: a model from private pictures, charged before the first step."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.access import access_from, passphrase_option
from sfumato.cli.audit import audited
from sfumato.cli.output import emit, json_option, note, project_here

if TYPE_CHECKING:
    from sfumato.audit import Report
    from sfumato.training.config import Config
    from sfumato.training.job import Result
    from sfumato.training.plan import PlannedRun
    from sfumato.training.run import OnStep, Progress


@click.command("train")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--epsilon", help="The run's privacy loss, in place of the file's; exact, as in 3 or 1/2.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Where the model goes, in place of the file's."
)
@click.option("--resume", is_flag=True, help="Take up the run where it was left, at no further charge.")
@click.option(
    "--explain", is_flag=True, help="Say what the run would cost and promise; charge and read nothing."
)
@click.option(
    "--audit", is_flag=True, help="Audit the code at the run's settings; if that fails, the model stays in."
)
@click.option(
    "--detector", metavar="WEIGHTS", help="Fine-tune this YOLO26 detector, without a file of settings."
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="With --detector: the dataset, as Ultralytics has it."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="With --detector: a setting, such as epochs=20, public_size=5000, lr=0.01 or units=whose.csv.",
)
@passphrase_option
@json_option
def command(config: Path | None, **options: Any) -> None:
    """Train a model on private pictures, with a guarantee for each of them.

    CONFIG is a file that says what to train on, what, and for which privacy loss; the documentation's page on
    private training has one to start from. The whole run is charged before its first step. If it is stopped,
    --resume goes on with it for what was charged; --explain tells the price beforehand.

    \b
    Examples:
      sfumato train run.toml --explain
      sfumato train run.toml
      sfumato train run.toml --epsilon 1 -o one.safetensors
      sfumato train run.toml --resume
      sfumato train run.toml --audit
      sfumato train --detector yolo26n.pt --data data.yaml --epsilon 8 \\
          --set public_size=5000 --set expected_batch=64 --set epochs=20
    """
    from sfumato.core.plugins import need

    if (config is None) == (options["detector"] is None):
        raise click.UsageError("Give a CONFIG file, or --detector WEIGHTS with --data: one of the two.")
    need("private training", ("torch", "safetensors"), "training")
    if config is None and options["audit"]:
        raise click.UsageError("--audit goes with a CONFIG file; for a detector run `sfumato audit`.")
    if config is None:
        _detector(options)
        return
    if wrong := [name for name in ("data", "settings") if options[name]]:
        flag = "--set" if wrong[0] == "settings" else "--data"
        raise click.UsageError(f"{flag} goes with --detector: a CONFIG file says it in its sections.")
    asked = _config(config, options)
    project = project_here()
    from sfumato.training.job import explain, prepare

    planned = explain(asked, project)
    if options["explain"]:
        _show(planned, options["as_json"])
        return
    job = prepare(asked, project, access=access_from(options["passphrase_fd"]))
    for name, why in job.data.left_out[:NAMED]:
        note(f"left out: {name} ({why})")
    if (more := len(job.data.left_out) - NAMED) > 0:
        note(f"left out: {more} more")
    begun: list[Progress] = []
    reports: list[Report] = []
    guards = [lambda run: reports.append(audited(run))] if options["audit"] else []
    try:
        with watching(planned.steps) as (on_step, tell):
            calls = [*on_step, begun.append]
            result = job.run(project, resume=options["resume"], on_step=calls, tell=tell, guards=guards)
    except KeyboardInterrupt:
        if begun:
            note("the run stands as it was charged: --resume goes on with it")
        raise
    if options["as_json"]:
        audit = {"audit": reports[0].to_data()} if reports else {}
        emit(_summary(result, planned) | audit)
        return
    for line in _lines(result, planned):
        click.echo(line)
    for report in reports:
        click.echo(f"Audited: {report.guarantee()['statement']}. Tested, not proven.")


#: Pictures that were left out, told by name.
NAMED = 5


def _config(path: Path, options: dict[str, Any]) -> Config:
    from sfumato.training.config import Config

    asked = Config.read(path)
    if options["epsilon"] is not None:
        asked = asked.with_privacy(epsilon=options["epsilon"])
    if options["out"] is not None:
        asked = asked.model_copy(update={"out": asked.out.model_copy(update={"model": options["out"]})})
    return asked


def _show(planned: PlannedRun, as_json: bool) -> None:
    """Print what a run would cost."""
    if not as_json:
        click.echo(planned.explain())
        return
    settings = planned.settings
    emit(
        {
            "epsilon": float(planned.price),
            "delta": float(planned.delta),
            "noise_multiplier": float(planned.noise_multiplier),
            "steps": planned.steps,
            "rate": float(planned.rate),
            "expected_batch": float(settings.normaliser),
            "unit": planned.unit,
            "population": settings.population,
            "share": settings.share,
            "statement": planned.plan.statement,
        }
    )


def _detector(options: dict[str, Any]) -> None:
    """Hand over to the room of detectors, which is imported here alone."""
    from sfumato.cli.train_detector import asked_for, told
    from sfumato.training.detect.train import train_detector
    from sfumato.training.plan import plan_run

    if options["data"] is None or options["epsilon"] is None:
        raise click.UsageError("--detector needs --data and --epsilon.")
    asked = asked_for(options)
    project = project_here()
    planned = plan_run(asked.privacy, project.policy)
    if options["explain"]:
        _show(planned, options["as_json"])
        return
    with watching(planned.steps) as (on_step, _):
        result = train_detector(asked, project=project, resume=options["resume"], on_step=on_step)
    if options["as_json"]:
        emit(told(result, planned))
        return
    promise = result.receipt.body["guarantee"]
    click.echo(f"Guarantee: {promise['type']}. {promise['statement']}")
    files = [str(path) for path in (result.weights, result.onnx) if path is not None]
    click.echo(f"Look at: {', '.join(files)}, {result.weights.name}.receipt.json.")


def _summary(result: Result, planned: PlannedRun) -> dict[str, Any]:
    receipt = result.receipt
    return {
        "status": "done",
        "exit_code": 0,
        "model": result.path.name,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "epsilon": float(planned.price),
        "delta": float(planned.delta),
        "noise_multiplier": float(planned.noise_multiplier),
        "test_accuracy": result.accuracy,
        "replaced": [str(one) for one in result.replaced],
        "guarantee": receipt.body["guarantee"],
        "recorded": receipt.recorded,
    }


def _lines(result: Result, planned: PlannedRun) -> Iterator[str]:
    for one in result.replaced:
        yield f"Replaced {one}."
    yield f"Trained: {result.steps} steps in {result.seconds:.0f} s."
    price, delta = float(planned.price), float(planned.delta)
    yield f"Spent: epsilon {price:.4g} at delta {delta:.3g}, for each {planned.unit}."
    if result.accuracy is not None:
        yield f"On the public test pictures: {result.accuracy:.2%} right."
    promise = result.receipt.body["guarantee"]
    yield f"Guarantee: {promise['type']}. {promise['statement']}"
    yield f"Look at: {result.path}, {result.path.name}.receipt.json."


@contextlib.contextmanager
def watching(steps: int) -> Iterator[tuple[list[OnStep], Callable[[str, int, int], None]]]:
    """Yield callbacks that draw a bar where standard error is a terminal, and that do nothing elsewhere."""
    if not sys.stderr.isatty():
        yield [], lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[spent]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    making = bars.add_task("features", total=None, visible=False, spent="")
    taking = bars.add_task("steps", total=steps or None, visible=False, spent="")

    def tell(what: str, done: int, of: int) -> None:
        bars.update(making, description=what, completed=done, total=of, visible=done < of)

    def step(progress: Progress) -> None:
        spent = f"epsilon {float(progress.epsilon):.3f} so far"
        bars.update(taking, completed=progress.step, total=progress.steps, visible=True, spent=spent)

    with bars:
        yield [step], tell
