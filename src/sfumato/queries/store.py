"""Answers that were given: the same question to the same data is answered again at no cost, never drawn anew.

An answer is written here, whole and durably, before its release is settled: after a crash in between it is
found, settled and given. A crash before that leaves the charge standing and no answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import IntegrityError
from sfumato.core.files import digest_of, make_private, write_whole
from sfumato.data.lock import locked

FORMAT = "sfumato-answer/1"


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it is kept.

    Args:
        answer: as JSON.
        reservation: the ledger's row that paid; key: takes the release up again where it was not settled.
        receipt: name of the receipt's file; empty while the release is not settled.
    """

    answer: str
    reservation: int | None
    key: bytes
    receipt: str = ""


class Store:
    """The answers of a project; its folder is private, as receipts are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self, digest: str) -> Iterator[None]:
        """Let one process at a time answer a question; the others find its answer."""
        make_private(self._folder)
        with locked(self._folder / f"{digest[:2]}.lock"):
            yield

    def read(self, digest: str) -> Kept | None:
        """Return the answer to a question, if it was given.

        Raises:
            IntegrityError: what is kept was changed.
        """
        path = self._path(digest)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise IntegrityError(f"the kept answer {path} does not read: restore it or remove it") from error
        body = data.get("body") if isinstance(data, dict) else None
        if not isinstance(body, dict) or data.get("digest") != digest_of(body) or body.get("for") != digest:
            raise IntegrityError(
                f"the kept answer {path} was changed: restore it, or remove it and ask again, which costs "
                "anew"
            )
        return Kept(body["answer"], body["reservation"], bytes.fromhex(body["key"]), body["receipt"])

    def write(self, digest: str, kept: Kept) -> None:
        """Keep an answer, durably."""
        body = {
            "format": FORMAT,
            "for": digest,
            "answer": kept.answer,
            "reservation": kept.reservation,
            "key": kept.key.hex(),
            "receipt": kept.receipt,
        }
        make_private(self._folder)
        write_whole(self._path(digest), json.dumps({"digest": digest_of(body), "body": body}), mode=None)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"
