"""The journal: durable, alone, and never less than what was said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sfumato.core.errors import IntegrityError, PolicyRefused
from sfumato.training.journal import LOCK, RECORD, STEPS, Journal, RunRecord, new_key, runs


def test_it_counts_over_reopening(tmp_path: Path) -> None:
    with Journal(tmp_path / "r") as journal:
        assert journal.read() == 0
        for count in (1, 2, 7):
            journal.begin(count)
            assert journal.read() == count
    with Journal(tmp_path / "r") as journal:
        assert journal.read() == 7
        journal.begin(8)
    assert (tmp_path / "r" / STEPS).read_text() == "1\n2\n7\n8\n"


def test_a_step_is_on_disk_before_begin_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "r") as journal:
        synced: list[str] = []
        real = os.fsync
        monkeypatch.setattr(
            os, "fsync", lambda fd: (synced.append((tmp_path / "r" / STEPS).read_text()), real(fd))
        )
        journal.begin(1)
        assert synced == ["1\n"]


def test_a_half_written_line_is_cut_off(tmp_path: Path) -> None:
    with Journal(tmp_path / "r") as journal:
        journal.begin(11)
    with (tmp_path / "r" / STEPS).open("a") as file:
        file.write("12")
    with Journal(tmp_path / "r") as journal:
        assert journal.read() == 11
        journal.begin(12)
        assert journal.read() == 12


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "r"), pytest.raises(PolicyRefused, match="spent twice"):
        Journal(tmp_path / "r")
    Journal(tmp_path / "r").close()


def test_what_is_no_journal_is_refused_and_frees_the_lock(tmp_path: Path) -> None:
    with Journal(tmp_path / "r") as journal:
        journal.begin(1)
    (tmp_path / "r" / STEPS).write_text("1\nx\n")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="changed"):
            Journal(tmp_path / "r")


def test_a_run_is_private_and_reads_back(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "000000000007"
    record = RunRecord("a" * 32, 7, "d" * 64, new_key())
    record.write(folder)
    Journal(folder).close()
    assert RunRecord.read(folder) == record
    for name in (RECORD, STEPS, LOCK):
        assert (folder / name).stat().st_mode & 0o077 == 0
    assert list(runs(tmp_path)) == [folder]
    assert new_key() != new_key()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "x"}', "\x00"])
def test_a_damaged_record_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(IntegrityError, match="does not read as a training run"):
        RunRecord.read(tmp_path)
