"""What starting costs: `import sfumato` against bare Python, `sfumato --help` against an argparse program.

Both as ratios of medians, alternated. The floor of the second is bare Python plus Click's own import.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from _bench import alternate, arguments, medians, report
from sfumato.cli.main import COMMANDS

ARGPARSE = """
import argparse
parser = argparse.ArgumentParser(prog="peer", description="A program with the same commands.")
commands = parser.add_subparsers()
for name, line in {commands!r}:
    command = commands.add_parser(name, help=line)
    command.add_argument("--json", action="store_true", help="print JSON")
parser.parse_args(["--help"])
"""


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        peer = Path(folder) / "peer.py"
        peer.write_text(ARGPARSE.format(commands=[(name, line) for name, (_, line) in COMMANDS.items()]))
        program = Path(sys.executable).with_name("sfumato")
        commands = {
            "bare python": [sys.executable, "-c", "pass"],
            "import sfumato": [sys.executable, "-c", "import sfumato"],
            "argparse --help": [sys.executable, str(peer)],
            "sfumato --help": [str(program), "--help"],
            "import click": [sys.executable, "-c", "import click"],
        }
        runs = {
            name: lambda command=command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            for name, command in commands.items()
        }
        alternate(runs, 3)  # warm the file cache
        middle = medians(alternate(runs, 15 if options.quick else 60))
    report(
        {
            "import_over_bare_python": middle["import sfumato"] / middle["bare python"],
            "help_over_argparse": middle["sfumato --help"] / middle["argparse --help"],
            "click_import_over_argparse": middle["import click"] / middle["argparse --help"],
        },
        [f"{name}: {1000 * value:.1f} ms" for name, value in middle.items()],
        options.json,
    )


if __name__ == "__main__":
    main()
