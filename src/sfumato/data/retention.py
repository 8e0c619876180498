"""Retention: what has been kept as long as the policy allows, and its end, on the record."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sfumato.core.errors import BatchFailed, IntegrityError, InvalidRequest, SfumatoError
from sfumato.core.files import open_private
from sfumato.core.policy import Retention
from sfumato.data.lock import locked

#: Clocks that are set by the network step back by less than this.
SLACK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Held:
    """Something that is kept.

    Args:
        dataset, version: what it is.
        since: when it came in, with its time zone.
        subject: a pseudonym where it is one person's data; empty for a whole version.
        days: how long it may stay; None: as long as the rule says for the dataset.
    """

    dataset: str
    version: str
    since: datetime
    subject: str = ""
    days: int | None = None

    def __post_init__(self) -> None:
        _aware(self.since, "since")


@dataclass(frozen=True, slots=True)
class Due:
    """Something whose time is over, and since when."""

    held: Held
    days: int
    end: datetime

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON: pseudonyms, no names."""
        data: dict[str, Any] = {
            "dataset": self.held.dataset,
            "version": self.held.version,
            "since": self.held.since.astimezone(UTC).isoformat(timespec="seconds"),
            "days": self.days,
            "end": self.end.isoformat(timespec="seconds"),
        }
        return data | ({"subject": self.held.subject} if self.held.subject else {})


def due(held: Iterable[Held], rule: Retention, now: datetime) -> tuple[Due, ...]:
    """Return what must go, the longest overdue first; depends on nothing but its arguments.

    >>> rule = Retention(days=30)
    >>> item = Held("traffic", "1", datetime(2026, 1, 1, tzinfo=UTC))
    >>> [len(due([item], rule, datetime(2026, 1, day, 23, tzinfo=UTC))) for day in (30, 31)]
    [0, 1]

    A day is 24 hours, whatever the time zone; an item goes when `days` of them have passed. One from the
    future of `now` (a clock was wrong) does not go.
    """
    now = _aware(now, "now")
    found = []
    for item in held:
        days = item.days if item.days is not None else rule.days_of(item.dataset)
        since = item.since.astimezone(UTC)
        if days is not None and since <= now and now - since >= timedelta(days=days):
            found.append(Due(item, days, since + timedelta(days=days)))
    return tuple(sorted(found, key=lambda entry: (entry.end, entry.held.dataset, entry.held.version)))


def retain(
    held: Iterable[Held],
    rule: Retention,
    *,
    act: Callable[[Due], None],
    log: Path,
    now: datetime | None = None,
    dry_run: bool = False,
) -> tuple[Due, ...]:
    """Let `act` end everything that is due, and write each to the log before and after.

    Args:
        act: erases or retires one item; called again for an item that an earlier run was killed over.
        log: a file of JSON lines, appended to durably.
        now: the time to go by; None: the clock.
        dry_run: only return what is due; nothing is written.

    Returns:
        What was due and is ended now.

    Raises:
        InvalidRequest: the clock is behind the last run: one of the two times is wrong, and data that is
            ended too early does not come back.
        BatchFailed: some could not be ended; the others are.
    """
    now = _aware(now if now is not None else datetime.now(UTC), "now")
    if dry_run:
        _refuse_an_earlier_clock(log, now)
        return due(held, rule, now)
    log.parent.mkdir(parents=True, exist_ok=True)
    with locked(log.with_name(f"{log.name}.lock")):  # of two runs the later sees what the first has written
        _refuse_an_earlier_clock(log, now)
        return _end(due(held, rule, now), act, log, now)


def _refuse_an_earlier_clock(log: Path, now: datetime) -> None:
    last = last_run(log)
    if last is not None and now < last - SLACK:
        raise InvalidRequest(
            f"the clock says {now.isoformat(timespec='seconds')}, and the last run was at "
            f"{last.isoformat(timespec='seconds')}: one of them is wrong. Set the clock; if the earlier run "
            f"was the wrong one, move {log} away, and check what it ended."
        )


def _end(entries: tuple[Due, ...], act: Callable[[Due], None], log: Path, now: datetime) -> tuple[Due, ...]:
    """End what is due, and write each to the log before and after."""
    _append(log, {"at": now.isoformat(), "what": "run", "due": len(entries)})
    done, failures = [], []
    for entry in entries:
        _append(log, {"at": now.isoformat(), "what": "begin", **entry.to_data()})
        try:
            act(entry)
        except (SfumatoError, OSError) as error:
            failures.append((f"{entry.held.dataset} {entry.held.version}", str(error)))
            _append(log, {"at": now.isoformat(), "what": "failed", **entry.to_data()})
            continue
        done.append(entry)
        _append(log, {"at": now.isoformat(), "what": "ended", **entry.to_data()})
    if failures:
        name, reason = failures[0]
        raise BatchFailed(
            f"{len(failures)} of {len(entries)} items that are due could not be ended; first: {name}: "
            f"{reason}",
            failures,
        )
    return tuple(done)


def last_run(log: Path) -> datetime | None:
    """Return the latest time in a log; None where there is no log yet.

    Raises:
        IntegrityError: a line of it does not read.
    """
    try:
        lines = log.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    times = []
    for number, line in enumerate(lines[:-1], 1):  # a line without its end is an append that was cut off
        try:
            times.append(_aware(datetime.fromisoformat(json.loads(line)["at"]), "at"))
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"line {number} of {log} does not read: {line[:80]!r}") from error
    return max(times, default=None)


def _append(log: Path, entry: dict[str, Any]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_private(log, os.O_RDWR), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - (1 << 16)))
        # What comes after the last whole line is an append that a power cut stopped.
        file.truncate(start + file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _aware(moment: datetime, name: str) -> datetime:
    if moment.tzinfo is None:
        raise InvalidRequest(f"{name} needs a time zone, got {moment.isoformat()}: 5 o'clock is not one time")
    return moment.astimezone(UTC)
