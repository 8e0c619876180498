"""The memory of a run: which files are done, so that `--resume` can leave them be.

It lies beside the outputs and may travel with them, so it holds no name and nothing that tells which input
an output came from: every digest is keyed with a secret of this user on this machine. A line that is torn,
or was not written with that secret, counts for nothing: its file is redacted again.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import platformdirs

from sfumato._version import __version__
from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import InvalidRequest
from sfumato.core.files import canonical, sha256_of, sync_folder, write_whole
from sfumato.core.receipt import Output
from sfumato.redaction.job import Outcome

FILE_NAME = ".sfumato-resume.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """One finished file: what it was made from and by, as a keyed digest, and what came of it."""

    made_from: str
    output: Output
    outcome: Outcome


class Journal:
    """The file in which finished work is remembered; one run at a time holds it.

    Args:
        path: the file; made when the first file is done.

    Raises:
        InvalidRequest: another run is writing the same outputs.

    Attributes:
        lasting: whether a later run will recognise what this one remembers; False where the secret could
            not be kept.
        exclusive: whether no other run can be at work here; False where the system has no file locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key, self.lasting = _secret()
        self._records: dict[str, Record] = {}
        self._file = path.open("ab+", buffering=0)
        try:
            self.exclusive = lock(self._file.fileno())
        except BlockingIOError:
            self._file.close()
            raise InvalidRequest(
                f"another run is writing to {path.parent}: wait for it, or choose another output"
            ) from None
        self._read()

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        for line in data.splitlines():
            if (held := self._own(line)) is not None:
                outcome = held["outcome"] | {"notes": tuple(held["outcome"]["notes"])}
                record = Record(held["made_from"], Output(**held["output"]), Outcome(**outcome))
                self._records[held["file"]] = record
        if data and not data.endswith(b"\n"):
            self._file.write(b"\n")  # a torn line stays torn; the next one starts afresh

    def _own(self, line: bytes) -> dict[str, Any] | None:
        """Return what a line holds if it was written with this secret."""
        try:
            held = json.loads(line)
            whole = isinstance(held, dict) and hmac.compare_digest(str(held.pop("mac", "")), self._mac(held))
        except (ValueError, TypeError, RecursionError):
            return None
        return held if whole else None

    def made_from(self, source: Path, digest: str) -> str:
        """Return the keyed digest of an input's bytes and of all else that decides its output."""
        state = hmac.new(self._key, f"input {__version__} {digest} ".encode(), hashlib.sha256)
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
        return state.hexdigest()

    def find(self, name: str, made_from: str, target: Path) -> Record | None:
        """Return the record of a file whose input is unchanged and whose output is as it was written."""
        record = self._records.get(self._name(name))
        if record is None or record.made_from != made_from or target.is_symlink():
            return None
        try:
            same = target.stat().st_size == record.output.bytes and sha256_of(target) == record.output.sha256
        except OSError:
            return None
        return record if same else None

    def add(self, name: str, record: Record) -> None:
        """Remember a file, durably. Called before the output gets its name: a kill between costs one redo."""
        held: dict[str, Any] = {
            "file": self._name(name),
            "made_from": record.made_from,
            "output": asdict(record.output),
            "outcome": _plain(record.outcome),
        }
        line = canonical(held | {"mac": self._mac(held)}) + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) != len(line):
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(self._file.fileno())
        if not end:
            sync_folder(self.path.parent)
        self._records[held["file"]] = record

    def _name(self, name: str) -> str:
        return hmac.new(self._key, b"name " + os.fsencode(name), hashlib.sha256).hexdigest()

    def _mac(self, held: Mapping[str, Any]) -> str:
        return hmac.new(self._key, b"line " + canonical(dict(held)), hashlib.sha256).hexdigest()

    def close(self) -> None:
        """Let go of the file; one without a line is removed."""
        empty = self._file.seek(0, os.SEEK_END) == 0
        if empty:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "kind": outcome.kind,
        "regions": dict(outcome.regions),
        "width": outcome.width,
        "height": outcome.height,
        "frames": outcome.frames,
        "notes": list(outcome.notes),
    }


def lock(handle: int) -> bool:
    """Lock an open file against other processes, where the system can; BlockingIOError: it is taken."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return False
    return True


def _secret() -> tuple[bytes, bool]:
    """Return this user's key, made at first use, and whether it was kept."""
    path = platformdirs.user_state_path("sfumato") / "resume.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"resume.key.{os.getpid()}")
            write_whole(fresh, SYSTEM.bytes(32), mode=0o600)
            try:
                os.link(fresh, path)  # unlike a rename, it never replaces a key that another run just made
            finally:
                fresh.unlink(missing_ok=True)
    except FileExistsError:
        pass
    except OSError:
        return SYSTEM.bytes(32), False
    try:
        key = path.read_bytes()
    except OSError:
        key = b""
    return (key, True) if len(key) == 32 else (SYSTEM.bytes(32), False)
