"""`sfumato`: a group whose commands are imported only when they run."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import click

from sfumato._version import __version__

#: command -> (module, one line of help). A test keeps the lines equal to the commands' own.
COMMANDS = {
    "init": ("sfumato.cli.init", "Start a project: a policy file and a ledger in this folder."),
    "redact": ("sfumato.cli.redact", "Hide faces, people and other things in pictures and videos."),
    "check": ("sfumato.cli.check", "Look for what redacted pictures and videos still show."),
    "audit": (
        "sfumato.cli.audit",
        "Attack the training code at given settings: what privacy loss can be shown?",
    ),
    "unseal": ("sfumato.cli.unseal", "Put sealed originals back into a copy of a redacted file."),
    "seal": ("sfumato.cli.seal", "Show what originals are sealed, or destroy them for ever."),
    "data": ("sfumato.cli.data", "Add, compare, verify and export datasets."),
    "query": ("sfumato.cli.query", "Ask about tables of people, and get answers about the crowd."),
    "train": ("sfumato.cli.train", "Train a model on private pictures, with a guarantee for each of them."),
    "models": ("sfumato.cli.models", "List, fetch and verify the detection models."),
    "ledger": ("sfumato.cli.ledger", "Show or verify the project's privacy ledger."),
    "roles": ("sfumato.cli.roles", "Show what each role may do, and which role you have."),
    "consent": ("sfumato.cli.consent", "Record who agrees to which purpose, and who took it back."),
    "token": ("sfumato.cli.token", "Make, list and revoke the tokens that servers ask with."),
    "vault": ("sfumato.cli.vault", "Encrypt the project's data at rest, and erase a person from it."),
    "report": ("sfumato.cli.report", "Write a page that answers for what was done; verify one."),
    "receipt": ("sfumato.cli.receipt", "Verify the receipt that came with a release."),
}


#: Seconds within which a further Ctrl-C belongs to the one before.
HAMMERING = 2.0


class LazyGroup(click.Group):
    """A group that knows its commands' names and help lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for a mistyped one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from sfumato.core.errors import nearest

            near = nearest(args[0], COMMANDS)
            hint = f" Did you mean {near!r}?" if near else f" Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failure, 2 usage, 3 refused by policy, 4 budget spent, 5 integrity broken.",
)
@click.version_option(__version__, prog_name="sfumato")
def cli() -> None:
    """Privacy for vision AI: sensitive pictures and videos go in, only safe things come out.

    \b
    Examples:
      sfumato redact street.jpg -o safe.jpg
      sfumato redact photos/ -o safe/ --hide face
      sfumato redact walk.mp4 -o safe.mp4 --hide person --model yolo26=yolo26n.onnx
      sfumato query "SELECT hour, COUNT(*) FROM flow GROUP BY hour" --epsilon 0.5
      sfumato ledger show
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line; an error becomes one line on stderr and its exit code."""
    try:
        with _interrupts(ends=argv is None):
            code = cli.main(args=argv, standalone_mode=False)
        if isinstance(code, int) and code:  # what ctx.exit(code) becomes outside standalone mode
            sys.exit(code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        with contextlib.suppress(OSError):  # the terminal may be gone
            click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:  # who reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from sfumato.cli.problems import explain
        from sfumato.core.errors import SfumatoError

        message = str(error) if isinstance(error, SfumatoError) else explain(error)
        if message is None:
            raise
        click.echo(f"sfumato: {message}", err=True)
        sys.exit(getattr(error, "exit_code", 1))


@contextlib.contextmanager
def _interrupts(*, ends: bool) -> Iterator[None]:
    """Make SIGTERM and SIGHUP stop a command as Ctrl-C does, so that what was released is settled.

    Of several in a row the first counts: the others would only tear what it set off.

    Args:
        ends: the process ends with the command, and hears no Ctrl-C while it does: Python would print where
            it stood in taking itself down.
    """
    last = -HAMMERING

    def stop(number: int, frame: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= HAMMERING:
            raise KeyboardInterrupt

    replaced = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) in (
                signal.SIG_DFL,
                signal.default_int_handler,
            ):
                replaced[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, signal.SIG_IGN if ends and number == signal.SIGINT else handler)
