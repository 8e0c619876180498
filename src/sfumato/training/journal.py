"""Which steps have begun, on disk before any of their noise is drawn: a crash cannot make the run forget one.

A run has a private folder in the project, `.sfumato/runs/ROW`: its key, its journal, and, unless it is kept
elsewhere, its checkpoint. One process at a time has the folder open.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError, PolicyRefused
from sfumato.core.files import make_private, open_private, sync_folder, write_whole
from sfumato.data.lock import try_take

RECORD, STEPS, LOCK = "run.json", "steps", "lock"
FORMAT = "sfumato-run/1"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run's folder says of it.

    Args:
        ledger: the ledger's own name.
        reservation: row that charged the run.
        digest: of its plan.
        key: 32 secret bytes that the run can be taken up with.
    """

    ledger: str
    reservation: int
    digest: str
    key: bytes

    def write(self, folder: Path) -> None:
        """Write the record; the file appears whole, for its owner alone."""
        data = {
            "format": FORMAT,
            "ledger": self.ledger,
            "reservation": self.reservation,
            "digest": self.digest,
            "key": self.key.hex(),
        }
        make_private(folder)
        write_whole(folder / RECORD, json.dumps(data) + "\n", mode=None)

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read a record.

        Raises:
            IntegrityError: the folder holds no run, or a damaged one.
        """
        try:
            data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError(data["format"])
            return cls(data["ledger"], data["reservation"], data["digest"], bytes.fromhex(data["key"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{folder} does not read as a training run ({error}): a run can be taken up again where it "
                "began. Restore the folder, or plan a new run; what was charged stays charged."
            ) from error


def new_key() -> bytes:
    """Return a key for a run."""
    return SYSTEM.bytes(32)


def runs(project: Path) -> Iterator[Path]:
    """Yield the folders of a project's runs, newest first."""
    home = project / "runs"
    found = (path for path in home.glob("[0-9]*") if path.name.isdigit())
    yield from sorted(found, key=lambda path: -int(path.name))


class Journal:
    """A file of whole numbers, one a line: so many steps have begun. It only grows.

    >>> import tempfile
    >>> with Journal(Path(tempfile.mkdtemp())) as journal:
    ...     journal.begin(3)
    ...     journal.read()
    3

    Args:
        folder: of the run; held alone until `close`.

    Raises:
        PolicyRefused: another process has the run open.
    """

    def __init__(self, folder: Path) -> None:
        make_private(folder)
        self.folder = folder
        self._lock = open_private(folder / LOCK, os.O_RDWR)
        if not try_take(self._lock):
            os.close(self._lock)
            raise PolicyRefused(
                f"another process goes on with the run in {folder}: one checkpoint cannot be spent twice",
                rule="claim",
            )
        try:
            self._file = open_private(folder / STEPS, os.O_RDWR)
            sync_folder(folder)
            self._cut()
        except BaseException:
            os.close(self._lock)
            raise

    def read(self) -> int:
        """Return how many steps have begun."""
        return max((int(line) for line in self._text().split()), default=0)

    def begin(self, count: int) -> None:
        """Say that `count` steps have begun; durable when this returns."""
        line = f"{count}\n".encode()
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)

    def _text(self) -> bytes:
        size = os.fstat(self._file).st_size
        os.lseek(self._file, 0, os.SEEK_SET)
        parts = []
        while size > 0 and (part := os.read(self._file, size)):
            parts.append(part)
            size -= len(part)
        os.lseek(self._file, 0, os.SEEK_END)
        text = b"".join(parts)
        if text.translate(None, b"0123456789\n"):
            raise IntegrityError(f"the journal {self.folder / STEPS} was changed: restore it from a backup")
        return text

    def _cut(self) -> None:
        """Cut off a line that a crash left half-written: its step had not begun, since noise comes after."""
        text = self._text()
        whole = text.rfind(b"\n") + 1
        if whole != len(text):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
            os.lseek(self._file, 0, os.SEEK_END)

    def close(self) -> None:
        """Let others have the run."""
        for name in ("_file", "_lock"):
            with contextlib.suppress(OSError, AttributeError):
                os.close(self.__dict__.pop(name, -1))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
