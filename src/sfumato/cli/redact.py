"""`sfumato redact`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.access import access_from, passphrase_option, population_option
from sfumato.cli.output import emit, json_option, note

if TYPE_CHECKING:
    from sfumato.redaction.request import Request
    from sfumato.redaction.result import Run
    from sfumato.redaction.sealed.room import Wish

#: So many names of files that were left out are printed; --json has all.
NAMED = 8


class _WithCatalogues(click.Command):
    """A command whose help ends with the covers and detectors that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both catalogues, from their own files."""
        from sfumato.redaction.covers import CATALOGUE as COVERS
        from sfumato.vision.detectors import CATALOGUE as DETECTORS

        for title, catalogue in (("Covers", COVERS), ("Detectors", DETECTORS)):
            with formatter.section(title):
                formatter.write_dl([(name, catalogue.load(name).summary) for name in catalogue.names])
        super().format_epilog(ctx, formatter)


def words(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Read a repeatable option of names, several of them separated by commas."""
    named = tuple(word.strip() for value in values for word in value.split(","))
    if any(not word for word in named):
        raise click.BadParameter("a name is empty")
    return named


def _pairs(shape: str, read: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """Return a callback that reads NAME=VALUE options into a table."""

    def callback(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for value in values:
            name, equals, given = value.partition("=")
            try:
                if not (name and equals and given):
                    raise ValueError
                result[name] = read(given)
            except ValueError:
                raise click.BadParameter(f"write {shape}, got {value!r}") from None
        return result

    return callback


model_files = _pairs("NAME=FILE, such as yolo26=yolo26n.onnx", lambda text: Path(text).expanduser())
_score_pairs = _pairs("CLASS=SCORE, such as face=0.2", float)
_cover_pairs = _pairs("CLASS=COVER, such as plate=solid", str)
_share_pairs = _pairs("CLASS=SHARE, such as face=0.5", float)
_option_pairs = _pairs("NAME=VALUE, such as picture=smile.png or colour=255,200,0", lambda text: _value(text))


def _value(text: str) -> Any:
    """Read a cover's setting: a number, numbers with commas between, or else words."""
    numbers: list[int | float] = []
    for part in text.split(","):
        try:
            numbers.append(int(part) if part.strip().lstrip("+-").isdigit() else float(part))
        except ValueError:
            return text
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _zones(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[Any, ...]:
    from sfumato.redaction.zones import Zone

    made = []
    for value in values:
        name, _, rest = value.partition("=")
        try:
            numbers = [float(number) for number in rest.split(",")]
        except ValueError:
            numbers = []
        if not name or len(numbers) < 4 or len(numbers) % 2:
            raise click.BadParameter(f"write NAME=X1,Y1,X2,Y2, such as clock=0.8,0,1,0.1, got {value!r}")
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        if len(points) == 2:
            (x1, y1), (x2, y2) = points
            points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        made.append(Zone(name, tuple(points)))
    return tuple(made)


@click.command("redact", cls=_WithCatalogues)
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "target", metavar="OUT", required=True, type=click.Path(path_type=Path),
    help="File to write; for a folder, a folder that will mirror it.",
)  # fmt: skip
@click.option(
    "--hide", metavar="CLASS", multiple=True, callback=words,
    help="What to hide: face, person, car, ... Repeatable.  [default: the policy's, else face]",
)  # fmt: skip
@click.option(
    "--cover", metavar="NAME", help="How to hide it, see below.  [default: the policy's, else fill]"
)
@click.option(
    "--cover-for", "covers", metavar="CLASS=COVER", multiple=True, callback=_cover_pairs,
    help="Cover of one class or 'zone NAME'.  [default: solid for writing that blur leaves legible]",
)  # fmt: skip
@click.option(
    "--zone", "zones", metavar="NAME=X1,Y1,X2,Y2", multiple=True, callback=_zones,
    help="Cover this place in every picture and frame, in shares of its sides; more numbers: a polygon.",
)  # fmt: skip
@click.option(
    "--keep", metavar="WHAT", multiple=True,
    help="Never cover this zone, or this thing: CLASS@X,Y, in video CLASS@X,Y@SECONDS. Goes on the receipt.",
)  # fmt: skip
@click.option(
    "--only", metavar="CLASS|ZONE", multiple=True, callback=words,
    help="In place of --hide: these and nothing else, where the policy allows that.",
)  # fmt: skip
@click.option(
    "--cover-option", "cover_options", metavar="NAME=VALUE", multiple=True, callback=_option_pairs,
    help="A setting of the cover: colour=255,200,0 (solid), look=track (fill), picture=FILE (replace), "
    "epsilon=0.5 (dp-pixelate).",
)  # fmt: skip
@click.option(
    "--model", "models", metavar="NAME=FILE", multiple=True, callback=model_files,
    help="Weights for a detector, in place of those fetched by `sfumato models pull`.",
)  # fmt: skip
@click.option(
    "--detector", "detectors", metavar="NAME", multiple=True, callback=words,
    help="Use this detector for all it finds.  [default: the best installed one for each class]",
)  # fmt: skip
@click.option(
    "--threshold", "thresholds", metavar="CLASS=SCORE", multiple=True, callback=_score_pairs,
    help="Least score that is hidden, 0..1; lower hides more. '*' stands for every class.",
)  # fmt: skip
@click.option(
    "--margin", "margins", metavar="CLASS=SHARE", multiple=True, callback=_share_pairs,
    help="Hide this share of the box's side more, on every side.  [default: face=0.4, others 0.1]",
)  # fmt: skip
@click.option(
    "--every", metavar="K", type=int, help="Video: look at every K-th frame.  [default: the policy's, else 5]"
)
@click.option(
    "--audio", type=click.Choice(["copy", "mute", "drop"]),
    help="Video: what becomes of the sound.  [default: the policy's, else copy]",
)  # fmt: skip
@click.option(
    "--subtitles", type=click.Choice(["drop", "copy"]),
    help="Video: what becomes of subtitles; they speak names.  [default: the policy's, else drop]",
)  # fmt: skip
@click.option(
    "--size", metavar="N", type=int,
    help="Long side of the detectors' input in pixels.  [default: by the picture or frame]",
)  # fmt: skip
@click.option(
    "--max-pixels", metavar="N", type=int,
    help="Refuse a picture or frame with more pixels, before it is decoded.  [default: 200000000]",
)  # fmt: skip
@click.option(
    "--threads", metavar="N", type=int, default=0, help="Inference threads.  [default: one per core]"
)
@click.option(
    "--workers", metavar="N", type=int,
    help="Pictures worked on at once; with ray, workers.  [default: every core, here or of the cluster]",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local",
    help="Where the work is done; the outputs are the same. ray: on a Ray cluster.  [default: local]",
)  # fmt: skip
@click.option(
    "--ray-address", metavar="ADDRESS",
    help="Ray cluster to join: HOST:PORT, or auto on one of its machines.  [default: RAY_ADDRESS, else one "
    "of its own, here]",
)  # fmt: skip
@click.option("--purpose", metavar="P", help="What the outputs are for: a purpose of the policy.")
@click.option("--resume", is_flag=True, help="Go on with an earlier run: skip what is done and unchanged.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option(
    "--check", is_flag=True,
    help="Look at every output as `sfumato check` does; what fails goes to a folder `quarantine` beside OUT.",
)  # fmt: skip
@click.option(
    "--seal", is_flag=True,
    help="Keep what is hidden, encrypted under the keys of the project's vault, for `sfumato unseal`.",
)  # fmt: skip
@click.option(
    "--seal-subject", "subjects", metavar="ID", multiple=True,
    help="With --seal: whom INPUT is about. Erasing that person ends what was sealed. Repeatable.",
)  # fmt: skip
@click.option(
    "--seal-to", metavar="FOLDER", type=click.Path(path_type=Path),
    help="With --seal: keep the sealed files there.  [default: .sfumato/sealed of the project]",
)  # fmt: skip
@population_option
@passphrase_option
@click.option("--no-report", is_flag=True, help="Write no report.html with contact sheets of the outputs.")
@json_option
def command(source: Path, target: Path, as_json: bool, **options: Any) -> None:
    """Hide faces, people and other things in pictures and videos.

    INPUT is a picture, a video, or a folder of them. It is never changed. Every output is whole or absent;
    what cannot be made safe is named and not written. All metadata is dropped. Beside the outputs lie a
    receipt (what was done, without any name) and a report with contact sheets: look at them.

    \b
    Examples:
      sfumato redact street.jpg -o safe.jpg
      sfumato redact photos/ -o safe/ --hide face
      sfumato redact photos/ -o safe/ --hide face --resume
      sfumato redact walk.mp4 -o safe.mp4 --hide person --model yolo26=yolo26n.onnx
      sfumato redact walk.mp4 -o safe.mp4 --hide face --audio drop --every 1
      sfumato redact street/ -o safe/ --hide face,plate,text --cover-for text=solid
      sfumato redact desk.jpg -o safe.jpg --hide screen,document,code
      sfumato redact hall.mp4 -o safe.mp4 --zone board=0,0.1,0.3,0.4 --keep face@0.5,0.3@2.5
      sfumato redact hall.mp4 -o safe.mp4 --zone board=0,0.1,0.3,0.4 --only board
      sfumato redact photos/ -o safe/ --check
      sfumato redact hall.mp4 -o safe.mp4 --seal --seal-subject patient-0017
      sfumato redact archive/ -o safe/ --engine ray --ray-address auto
    """
    from sfumato.core.errors import BatchFailed, MediaError, SfumatoError
    from sfumato.redaction.result import Stopped

    try:
        run = _run(source, target, options)
    except Stopped as stop:
        if as_json:
            emit(_summary(stop.run, "stopped", 130))
        note(str(stop))
        raise
    except KeyboardInterrupt:
        if as_json:
            emit({"status": "stopped", "exit_code": 130, "failures": [], "recorded": False})
        raise
    except (SfumatoError, OSError, UnicodeError, sqlite3.Error) as error:
        if as_json:
            refused = isinstance(error, SfumatoError) and not isinstance(error, MediaError)
            emit(_refusal(source, error, failed=not refused))
        raise
    code = BatchFailed.exit_code if run.failures else 0
    if as_json:
        emit(_summary(run, "incomplete" if run.failures else "done", code))
    else:
        for line in _lines(run):
            click.echo(line)
    _remarks(run)
    run.check()


def _run(source: Path, target: Path, options: dict[str, Any]) -> Run:
    from sfumato.cli.progress import watching
    from sfumato.core.gate import UNDECLARED
    from sfumato.redaction.run import Options, run_files

    chosen = Options(
        purpose=options["purpose"] or UNDECLARED,
        resume=options["resume"],
        overwrite=options["overwrite"],
        report=not options["no_report"],
        check=options["check"],
        seal=_seal(source, target, options),
        engine=options["engine"],
        ray_address=options["ray_address"],
        workers=options["workers"],
    )
    with watching() as watch:
        return run_files(source, target, _request(options), options=chosen, watch=watch)


def _seal(source: Path, target: Path, options: dict[str, Any]) -> Wish | None:
    """Return how originals are to be sealed; None: they are not."""
    from sfumato.core.errors import InvalidRequest
    from sfumato.redaction.door import ruling

    with_it = {"--seal-subject": options["subjects"], "--seal-to": options["seal_to"]}
    project = ruling(source, target)
    ruled = project is not None and project.policy.redact.seal
    if not options["seal"] and not ruled:
        if said := [name for name, value in with_it.items() if value]:
            raise InvalidRequest(f"{said[0]} goes with --seal: give both, or neither")
        return None
    from sfumato.cli.access import population_from
    from sfumato.redaction.sealed.room import NO_VAULT, Wish

    if project is None:
        raise InvalidRequest(NO_VAULT)
    subjects = options["subjects"]
    population = population_from(project.policy, options["population"]) if subjects else ""
    return Wish(access_from(options["passphrase_fd"]), subjects, population, options["seal_to"])


def _request(options: dict[str, Any]) -> Request:
    from sfumato.redaction.request import Request

    names = (
        "cover",
        "cover_options",
        "models",
        "detectors",
        "thresholds",
        "margins",
        "every",
        "audio",
        "subtitles",
        "size",
        "threads",
    )
    chosen = {name: options[name] for name in (*names, "max_pixels")}
    chosen |= {name: options[name] for name in ("covers", "zones", "keep")}
    return Request(hide=options["hide"] or None, only=options["only"] or None, **chosen)


def _remarks(run: Run) -> None:
    """Print what should not be overlooked to standard error."""
    from sfumato.redaction.run import NOT_RECORDED
    from sfumato.redaction.tree import shown

    if run.left_out:
        names = [f"{name} ({why})" for name, why in run.left_out[:NAMED]]
        more = [f"and {len(run.left_out) - NAMED} more"] if len(run.left_out) > NAMED else []
        note(f"left out, {len(run.left_out)}: {', '.join(names + more)}")
    if run.older:
        named = [shown(path) for path in run.older[:NAMED]]
        more = [f"and {len(run.older) - NAMED} more"] if len(run.older) > NAMED else []
        note(f"not of this run and not in its receipt, {len(run.older)}: {', '.join(named + more)}")
    if run.receipt is not None and not run.receipt.recorded:
        note(NOT_RECORDED)


def _lines(run: Run) -> Iterator[str]:
    """Yield the summary for people."""
    from sfumato.redaction.tree import shown

    if run.receipt is None:
        yield "Nothing was redacted, and nothing was written."
        return
    total = len(run.results) + len(run.failures)
    facts = run.receipt.body["facts"]
    counts = [(facts["pictures"], "picture"), (facts["videos"], "video")]
    kinds = " and ".join(f"{count} {kind}{'s' * (count > 1)}" for count, kind in counts if count)
    earlier = f", {run.skipped} of them by an earlier run" if run.skipped else ""
    files = f"{len(run.results)} of {total} file{'s' * (total > 1)}"
    yield f"Redacted: {files} ({kinds}{earlier}) in {run.seconds:.1f} s."
    hidden = ", ".join(f"{label} {count}" for label, count in run.regions.items())
    yield f"Regions: {hidden or 'nothing was found to hide; look at the outputs'}."
    if run.ratio and run.done:
        share = run.detector_seconds / run.work_seconds
        yield f"Per file {run.seconds / run.done:.2f} s; of the work, the bare detectors took {share:.0%}."
    for test in facts.get("tests", ()):
        yield f"Tested: {test['attack']}; {_outcome(test)}."
    if facts.get("sealed"):
        yield f"Sealed: the originals of {facts['sealed']} files, for `sfumato unseal`."
    promise = run.receipt.body["guarantee"]
    yield f"Guarantee: {promise['type']}. {promise['statement']}"
    places = [shown(path) for path in (run.report_path, run.receipt_path) if path is not None]
    yield f"Look at: {', '.join(places)}."


def _outcome(test: dict[str, Any]) -> str:
    """Say what came of an attack."""
    count = test["files_found"]
    return f"{count} outputs failed and were quarantined" if count else "nothing was found"


def _summary(run: Run, status: str, code: int) -> dict[str, Any]:
    """Return what --json prints for a run."""
    from sfumato.redaction.tree import shown

    receipt = run.receipt
    facts = receipt.body["facts"] if receipt is not None else {}
    return {
        "status": status if receipt is not None else "failed",
        "exit_code": code,
        "files": {
            "done": run.done,
            "skipped": run.skipped,
            "failed": len(run.failures),
            "left_out": len(run.left_out),
        },
        "pictures": facts.get("pictures", 0),
        "videos": facts.get("videos", 0),
        "frames": facts.get("frames", 0),
        "regions": run.regions,
        "failures": [{"name": one.name, "error": one.error, "reason": one.reason} for one in run.failures],
        "left_out": [{"name": name, "why": why} for name, why in run.left_out],
        "notes": list(run.notes),
        "seconds": round(run.seconds, 4),
        "work_seconds": round(run.work_seconds, 4),
        "detector_seconds": round(run.detector_seconds, 4),
        "seconds_per_image": round(run.seconds / run.done, 4) if run.done and not facts["videos"] else None,
        "ratio": round(run.ratio, 4) if run.ratio else None,
        "guarantee": receipt.body["guarantee"] if receipt is not None else None,
        "cosmetic": not run.secure,
        "tests": facts.get("tests", []),
        "sealed": facts.get("sealed"),
        "receipt": shown(run.receipt_path) if run.receipt_path else None,
        "report": shown(run.report_path) if run.report_path else None,
        "older": [shown(path) for path in run.older],
        "recorded": receipt is not None and receipt.recorded,
    }


def _refusal(source: Path, error: Exception, *, failed: bool) -> dict[str, Any]:
    """Return what --json prints where nothing was done."""
    from sfumato.cli.problems import explain
    from sfumato.redaction.tree import Failure, shown

    one = Failure.of(shown(source.name), error)
    failures = [{"name": one.name, "error": one.error, "reason": one.reason}] if failed else []
    return {
        "status": "failed" if failed else "refused",
        "exit_code": getattr(error, "exit_code", 1),
        "error": type(error).__name__,
        "message": explain(error) or str(error),
        "failures": failures,
        "recorded": False,
    }
