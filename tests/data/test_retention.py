"""Retention: what is due depends on its arguments alone; clocks that jump destroy nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import BatchFailed, IntegrityError, InvalidRequest, PolicyError
from sfumato.core.policy import Policy, Retention
from sfumato.data.retention import Due, Held, due, last_run, retain

START = datetime(2026, 1, 1, tzinfo=UTC)
RULE = Retention(days=30, datasets={"short": 1, "now": 0})


def item(dataset: str = "scans", version: str = "1", since: datetime = START) -> Held:
    return Held(dataset, version, since)


def test_the_policy_reads_and_a_datasets_own_days_go_first() -> None:
    policy = Policy.parse('[project]\nname = "x"\n[retention]\ndays = 365\n[retention.datasets]\nshort = 7')
    assert (policy.retention.days_of("short"), policy.retention.days_of("else")) == (7, 365)
    assert Policy.parse('[project]\nname = "x"').retention.days_of("any") is None
    assert Policy.parse(policy.to_toml()) == policy


@pytest.mark.parametrize("days", ["-1", "40000", '"many"', "nan"])
def test_days_that_make_no_sense_are_refused(days: str) -> None:
    with pytest.raises(PolicyError, match="retention"):
        Policy.parse(f'[project]\nname = "x"\n[retention]\ndays = {days}')


@given(
    days=st.integers(0, 400),
    age=st.timedeltas(min_value=-timedelta(days=900), max_value=timedelta(days=900)),
    zone=st.integers(-12, 14),
)
def test_due_is_age_and_nothing_else(days: int, age: timedelta, zone: int) -> None:
    now = START.astimezone(timezone(timedelta(hours=zone)))
    found = due([item(since=START - age)], Retention(days=days), now)
    assert bool(found) == (age >= timedelta(0) and age >= timedelta(days=days))


@given(ages=st.lists(st.integers(0, 100)), later=st.integers(0, 100))
def test_what_is_due_stays_due(ages: list[int], later: int) -> None:
    held = [item(version=str(i), since=START - timedelta(days=age)) for i, age in enumerate(ages)]
    first = {entry.held for entry in due(held, RULE, START)}
    assert first <= {entry.held for entry in due(held, RULE, START + timedelta(days=later))}


def test_the_longest_overdue_comes_first_and_the_end_is_given() -> None:
    held = [item("scans"), item("short"), item("now"), item("scans", "2", START + timedelta(days=39))]
    found = due(held, RULE, START + timedelta(days=40))
    assert [(entry.held.dataset, entry.end - START) for entry in found] == [
        ("now", timedelta(0)),
        ("short", timedelta(days=1)),
        ("scans", timedelta(days=30)),
    ]


def test_without_a_rule_nothing_is_due() -> None:
    assert due([item()], Retention(), START + timedelta(days=36500)) == ()


def test_times_without_a_zone_are_refused() -> None:
    naive = START.replace(tzinfo=None)
    with pytest.raises(InvalidRequest, match="time zone"):
        item(since=naive)
    with pytest.raises(InvalidRequest, match="time zone"):
        due([], RULE, naive)


def lines(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_run_ends_what_is_due_and_logs_it(tmp_path: Path) -> None:
    log, ended = tmp_path / "retention.jsonl", []
    now = START + timedelta(days=31)
    done = retain([item(), item("scans", "2", now)], RULE, act=ended.append, log=log, now=now)
    assert [entry.held.version for entry in done] == ["1"]
    assert tuple(ended) == done
    assert [line["what"] for line in lines(log)] == ["run", "begin", "ended"]
    assert lines(log)[1]["end"] == "2026-01-31T00:00:00+00:00"


def test_a_dry_run_does_and_writes_nothing(tmp_path: Path) -> None:
    log = tmp_path / "retention.jsonl"
    found = retain([item()], RULE, act=pytest.fail, log=log, now=START + timedelta(days=99), dry_run=True)
    assert len(found) == 1
    assert not log.exists()


def test_a_clock_set_back_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    log = tmp_path / "retention.jsonl"
    wrong = START + timedelta(days=3650)
    retain([], RULE, act=pytest.fail, log=log, now=wrong)
    with pytest.raises(InvalidRequest, match="one of them is wrong"):
        retain([item("now")], RULE, act=pytest.fail, log=log, now=START)
    assert last_run(log) == wrong
    retain([], RULE, act=pytest.fail, log=log, now=wrong - timedelta(minutes=1))  # a step of the network time


def test_data_from_the_future_stays(tmp_path: Path) -> None:
    """A clock was ahead when the data came in."""
    future = item("now", since=START + timedelta(days=1))
    assert retain([future], RULE, act=pytest.fail, log=tmp_path / "log", now=START) == ()


def test_what_fails_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    def act(entry: Due) -> None:
        if entry.held.version == "1":
            raise InvalidRequest("it is in use")

    log = tmp_path / "log"
    held = [item(), item(version="2")]
    with pytest.raises(BatchFailed, match=r"1 of 2.*in use") as failure:
        retain(held, RULE, act=act, log=log, now=START + timedelta(days=30))
    assert failure.value.failures == (("scans 1", "it is in use"),)
    assert [line["what"] for line in lines(log)] == ["run", "begin", "failed", "begin", "ended"]


def test_a_killed_run_is_taken_up(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def dies(entry: Due) -> None:
        raise Killed

    log, ended, now = tmp_path / "log", [], START + timedelta(days=30)
    with pytest.raises(Killed):
        retain([item()], RULE, act=dies, log=log, now=now)
    assert [line["what"] for line in lines(log)] == ["run", "begin"]
    with log.open("ab") as file:
        file.write(b'{"at": "2026-')  # and the power went in the middle of a line
    retain([item()], RULE, act=ended.append, log=log, now=now)
    assert [line["what"] for line in lines(log)] == ["run", "begin", "run", "begin", "ended"]


def test_a_log_that_does_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("hello\n")
    with pytest.raises(IntegrityError, match="line 1"):
        retain([], RULE, act=pytest.fail, log=tmp_path / "log", now=START)


def test_two_runs_at_once_tear_no_line_of_the_log(tmp_path: Path) -> None:
    """Each writes at what it saw as the end: without a lock one's lines lie over the other's."""
    import threading

    log, start = tmp_path / "log", threading.Barrier(4)
    held = [item(version=str(number)) for number in range(15)]

    def run() -> None:
        start.wait()
        retain(held, RULE, act=lambda entry: None, log=log, now=START + timedelta(days=40))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [sum(line["what"] == what for line in lines) for what in ("run", "begin", "ended")] == [4, 60, 60]
    assert all(line["what"] != "run" or index % 31 == 0 for index, line in enumerate(lines))
