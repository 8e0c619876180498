"""Chunks, copied GOPs and encoding anew: what is kept, and that nothing else is."""

from __future__ import annotations

import itertools
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sfumato.core.errors import MediaError, UnreadableMedia
from sfumato.redaction.job import Job
from sfumato.redaction.layers import places
from sfumato.redaction.settings import Settings
from sfumato.redaction.videos import h264, redact_video_file, target
from sfumato.redaction.videos import survey as surveys
from sfumato.redaction.videos.frames import planes
from sfumato.redaction.videos.looking import ChunkSights, look, together
from sfumato.redaction.videos.making import Edit, edit_for, join, make, runs_of
from sfumato.redaction.videos.redact import tracks_of
from sfumato.redaction.videos.threads import ahead

Make = Callable[..., Path]
MakeJob = Callable[..., Job]
GOPS = {
    "preset": "veryfast",
    "x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-pyramid=normal",
    "crf": "20",
}
SECRET = b"Ada Lovelace, 12 St James's Square"


def in_the_middle(index: int) -> list[tuple[int, int, int]]:
    """A square in frames 28..31 of 60: with its holds in the third of five GOPs, 24..35."""
    return [(60, 40, 18)] if 28 <= index <= 31 else []


def pictures(path: Path) -> list[Any]:
    """Return the planes of every frame, as they are."""
    with av.open(str(path)) as container:
        return [[plane.copy() for plane in planes(frame)] for frame in container.decode(video=0)]


def same(one: list[Any], two: list[Any]) -> list[bool]:
    pairs = zip(one, two, strict=True)
    return [all(np.array_equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in pairs]


def seen(source: Path, form: target.Target, job: Job, backwards: bool = False) -> tuple[Edit, Any]:
    survey = surveys.survey(source, form, job.settings)
    order = range(len(survey.chunks))
    parts = {n: look(source, survey, n, job) for n in (reversed(order) if backwards else order)}
    inline = [parts[n] for n in order]
    scan = together(source.name, form, survey, inline)
    return edit_for(source, form, survey, inline, scan, tracks_of(scan, job), job), scan


class TestCopiedGroups:
    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
    def test_frames_of_groups_with_nothing_to_hide_are_bit_exact(
        self, clip: Make, toy_job: MakeJob, open_frames: Any, times_of: Any, tmp_path: Path, suffix: str
    ) -> None:
        source, out = clip("in.mp4", frames=60, squares=in_the_middle, options=GOPS), tmp_path / f"o{suffix}"
        assert redact_video_file(source, out, toy_job(every=2)).frames == 60
        kept = same(pictures(source), pictures(out))
        assert all(kept[:24])
        assert all(kept[36:])
        assert not any(kept[24:36])
        assert open_frames(source)
        assert open_frames(out) == []
        assert times_of(out) == pytest.approx(times_of(source), abs=0.001)

    def test_all_is_copied_where_nothing_is_found(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4", frames=30, squares=lambda index: [], options=GOPS, audio=["aac"])
        redact_video_file(source, tmp_path / "out.mp4", toy_job())
        assert all(same(pictures(source), pictures(tmp_path / "out.mp4")))

    def test_all_is_encoded_anew_under_a_zone_or_a_turn(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mp4", frames=30, squares=lambda index: [], options=GOPS)
        zone = {"name": "till", "points": ((0.1, 0.1), (0.4, 0.1), (0.4, 0.4), (0.1, 0.4))}
        redact_video_file(source, tmp_path / "out.mp4", toy_job(zones=(zone,)))
        assert not any(same(pictures(source), pictures(tmp_path / "out.mp4")))
        turned = clip("turned.mp4", frames=30, squares=lambda index: [], options=GOPS, rotation=180)
        assert surveys.survey(turned, target.TARGETS[".mp4"], Settings()).header is None

    def test_decoding_can_begin_at_every_key_frame(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mp4", frames=60, squares=in_the_middle, options=GOPS)
        redact_video_file(source, tmp_path / "out.mp4", toy_job(every=2))
        whole = pictures(tmp_path / "out.mp4")
        with av.open(str(tmp_path / "out.mp4")) as container:
            stream: Any = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            assert all(one.dts < two.dts for one, two in itertools.pairwise(packets))
            keys = [packet.pts for packet in packets if packet.is_keyframe]
            first = min(packet.pts for packet in packets)
        assert len(keys) == 5
        for key in keys:
            with av.open(str(tmp_path / "out.mp4")) as container:
                stream = container.streams.video[0]
                container.seek(key, stream=stream)
                shown = [[p.copy() for p in planes(frame)] for frame in container.decode(stream)]
                place = round((key - first) * stream.time_base * 25)
                assert all(same(shown, whole[place:]))

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_a_word_beside_the_pictures_is_gone(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, suffix: str
    ) -> None:
        plain = clip("plain.mp4", frames=60, squares=in_the_middle, options=GOPS)
        word = bytes([6, 5, 16 + len(SECRET)]) + bytes(range(1, 17)) + SECRET + b"\x80"
        source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        with av.open(str(plain)) as one, av.open(str(source), "w") as two:
            stream = two.add_stream_from_template(one.streams.video[0])
            for packet in one.demux(one.streams.video[0]):
                if packet.size:
                    other = av.Packet(len(word).to_bytes(4, "big") + word + bytes(packet))
                    other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
                    other.stream, other.is_keyframe = stream, packet.is_keyframe
                    two.mux(other)
        assert source.read_bytes().count(SECRET) == 60  # the check can fail
        redact_video_file(source, out, toy_job(every=2))
        data = out.read_bytes()
        assert SECRET not in data
        assert b"x264" not in data
        assert sum(same(pictures(source), pictures(out))) == 48

    def test_a_file_that_says_more_than_pictures_is_not_written(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = clip("in.mp4", frames=30, squares=lambda index: [], options=GOPS)
        monkeypatch.setattr(h264, "IDLE", frozenset())
        monkeypatch.setattr(h264, "PICTURES", h264.PICTURES | {h264.SEI})
        monkeypatch.setattr(h264, "joined", lambda units: b"\0\0\0\3\6\5\x80" + joined(units))
        joined = _joined
        with pytest.raises(MediaError, match="besides pictures"):
            redact_video_file(source, tmp_path / "out.mp4", toy_job())
        assert not (tmp_path / "out.mp4").exists()


def _joined(units: Any) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


class TestHeaders:
    def header(self, path: Path) -> bytes:
        with av.open(str(path)) as container:
            return bytes(container.streams.video[0].codec_context.extradata or b"")

    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
    def test_are_read_to_their_last_bit(self, clip: Make, pix_fmt: str) -> None:
        data = self.header(clip("in.mp4", frames=2, pix_fmt=pix_fmt))
        header = h264.read_header(data)
        assert header.free_id() not in header.ids
        assert h264.read_header(h264.write_header([header])) == header

    @pytest.mark.parametrize("which", ["sps", "pps"])
    def test_with_room_for_words_are_refused(self, clip: Make, which: str) -> None:
        header = h264.read_header(self.header(clip("in.mp4", frames=2)))
        units = {"sps": header.sps, "pps": header.pps}
        units[which] = (units[which][0] + SECRET,)
        longer = h264.Header(units["sps"], units["pps"], header.ids)
        with pytest.raises(h264.Foreign, match="beyond"):
            h264.read_header(h264.write_header([longer]))

    def test_of_interlaced_video_are_refused(self, clip: Make) -> None:
        options = {"preset": "ultrafast", "x264-params": "tff=1"}
        with pytest.raises(h264.Foreign, match="interlaced"):
            h264.read_header(self.header(clip("in.mp4", frames=2, options=options)))

    @pytest.mark.parametrize("data", [b"", b"\1", b"\0\0\0\1\x67", b"\1\x64\0\x15\xff\xe1\0\x99\x67"])
    def test_that_are_broken_are_refused(self, data: bytes) -> None:
        with pytest.raises(h264.Foreign):
            h264.read_header(data)

    def test_packets_hold_one_picture(self) -> None:
        header = h264.Header((b"\x67",), (b"\x68",), frozenset({0}))
        packet = [b"\x06note", b"\x65\x88pixels", b"\x65\x20more"]
        assert h264.picture_units(_joined(packet), header) == packet[1:]
        for bad in ([b"\x06note"], [b"\x65\x88one", b"\x65\x88two"], [b"\x65\x88one", b"\x74\x20two"]):
            with pytest.raises(h264.Foreign):
                h264.picture_units(_joined(bad), header)
        with pytest.raises(h264.Foreign):
            h264.picture_units(b"\0\0\0\x09\x65", header)


class TestChunks:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(surveys, "CHUNK", 12)

    def squares(self, index: int) -> list[tuple[int, int, int]]:
        return [(20 + 2 * (index % 40), 40, 18)] if 20 <= index < 47 else []

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_are_made_alike_in_any_order(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, open_frames: Any, times_of: Any, suffix: str
    ) -> None:
        source = clip("in.mp4", frames=60, squares=self.squares, options=GOPS, audio=["aac"])
        job, form = toy_job(every=3), target.TARGETS[suffix]
        redact_video_file(source, tmp_path / f"whole{suffix}", job)
        edit, _ = seen(source, form, job, backwards=True)
        assert len(edit.survey.chunks) == 5
        edit = pickle.loads(pickle.dumps(edit))  # the sender is this test
        made = {n: pickle.loads(pickle.dumps(list(make(source, edit, n, job)))) for n in (4, 2, 0, 3, 1)}
        join(source, tmp_path / f"parts{suffix}", edit, [one for n in range(5) for one in made[n]], job)
        assert (tmp_path / f"parts{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
        assert open_frames(source)
        assert open_frames(tmp_path / f"whole{suffix}") == []
        assert times_of(tmp_path / f"whole{suffix}") == pytest.approx(times_of(source), abs=0.001)

    def test_see_all_frames_of_the_file(self, clip: Make, toy_job: MakeJob, times_of: Any) -> None:
        times = [0, 31, 70, *range(100, 2900, 50)]
        source = clip("in.mp4", times=times, time_base=Fraction(1, 1000), frames=59, options=GOPS)
        _, scan = seen(source, target.TARGETS[".mp4"], toy_job())
        assert [time * scan.time_base for time in scan.times] == times_of(source)
        assert max(scan.sights) == 58

    def test_a_cut_between_two_is_a_cut(self, clip: Make, toy_job: MakeJob) -> None:
        source = clip("in.mp4", frames=48, options=GOPS, shade=lambda index: 60 if index < 24 else 0)
        _, scan = seen(source, target.TARGETS[".mp4"], toy_job())
        assert scan.cuts == {24}

    @pytest.mark.parametrize(
        ("codec", "what", "count"),
        [
            ("mpeg4", {}, 1),
            ("mjpeg", {"pix_fmt": "yuvj420p"}, 4),
            ("libvpx-vp9", {"options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}}, 4),
            ("libx264", {"options": GOPS}, 4),
            ("libx264", {"options": {"x264-params": "keyint=12:min-keyint=12:open-gop=1:scenecut=0"}}, 1),
        ],
    )
    def test_begin_where_decoding_can_begin(
        self,
        clip: Make,
        toy_job: MakeJob,
        codec: str,
        what: Any,
        count: int,
        tmp_path: Path,
        open_frames: Any,
    ) -> None:
        source = clip("in.mkv", frames=48, codec=codec, **({"options": {}} | what))
        survey = surveys.survey(source, target.TARGETS[".mp4"], Settings())
        assert len(survey.chunks) == count
        assert [chunk.first for chunk in survey.chunks] == list(range(0, 48, 12))[:count]
        assert redact_video_file(source, tmp_path / "out.mp4", toy_job()).frames == 48
        assert open_frames(tmp_path / "out.mp4") == []

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_damage_in_any_of_them_is_an_error(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, suffix: str
    ) -> None:
        options = {**GOPS, "crf": "1"}
        source = clip(f"in{suffix}", frames=60, squares=in_the_middle, options=options)
        survey = surveys.survey(source, target.TARGETS[".mp4"], Settings())
        with av.open(str(source)) as container:
            packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
        good, drawn = source.read_bytes(), random.Random(0)
        for chunk in survey.chunks:
            bad = bytearray(good)
            for at, size in packets[chunk.first : chunk.first + chunk.packets]:
                bad[at + 40 + drawn.randrange(max(size - 60, 1))] ^= 1 << drawn.randrange(8)
            source.write_bytes(bad)
            with pytest.raises(UnreadableMedia):
                redact_video_file(source, tmp_path / "out.mp4", toy_job())
            assert not (tmp_path / "out.mp4").exists()
        assert len(survey.chunks) == 5

    def test_a_picture_that_changes_after_it_was_looked_at_is_not_copied(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mp4", frames=24, squares=lambda index: [], options=GOPS)
        other = clip("other.mp4", frames=24, options=GOPS)  # the same times, with squares

        def swap(done: int, total: int | None) -> None:
            if done == 24:
                source.write_bytes(other.read_bytes())

        with pytest.raises(UnreadableMedia, match="read differently"):
            redact_video_file(source, tmp_path / "out.mp4", toy_job(), swap)
        assert not (tmp_path / "out.mp4").exists()

    def test_runs_are_whole_groups_and_short_ones_join_the_others(self, clip: Make, toy_job: MakeJob) -> None:
        options = {"preset": "ultrafast", "x264-params": "keyint=4:min-keyint=4:scenecut=0:bframes=0"}
        source = clip("in.mp4", frames=60, squares=in_the_middle, options=options)
        job = toy_job(every=2)
        edit, _ = seen(source, target.TARGETS[".mp4"], job)
        fixed = places(job, source, 160, 96)
        for chunk in edit.survey.chunks:
            runs = runs_of(edit, chunk.index, fixed)
            assert [run.start for run in runs[1:]] == [run.stop for run in runs[:-1]]
            assert (runs[0].start, runs[-1].stop) == (0, chunk.packets)
            assert all(run.stop - run.start >= 8 for run in runs if run.copied)
            assert {run.start for run in runs} <= set(chunk.keys)
            for run in runs:
                inside = range(chunk.first + run.start, chunk.first + run.stop)
                assert not (run.copied and any(t.at(n) is not None for t in edit.tracks for n in inside))


class TestQuality:
    def test_parameter_sets_do_not_depend_on_quality(self, clip: Make, toy_job: MakeJob) -> None:
        edit, _ = seen(clip("in.mp4"), target.TARGETS[".mp4"], toy_job())
        finer = replace(edit.coding, options=(("crf", "5"),))
        assert finer.context().extradata == edit.coding.context().extradata

    def test_real_pictures_stay_over_40_db_and_within_their_bits(
        self, testdata: Callable[[str], Path], toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source, out = testdata("video/bikes.mp4"), tmp_path / "out.mp4"
        zone = {"name": "corner", "points": ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.0, 0.1))}
        redact_video_file(source, out, toy_job(every=100, zones=(zone,)))
        worst = 99.0
        for one, two in zip(pictures(source), pictures(out), strict=True):
            error = (one[0][40:].astype(float) - two[0][40:]) ** 2
            worst = min(worst, 10 * np.log10(255**2 / error.mean()))
        assert worst >= 40
        assert out.stat().st_size <= 1.25 * source.stat().st_size

    def test_ten_bits_stay_ten_bits_and_close(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4", pix_fmt="yuv420p10le", frames=12)
        redact_video_file(source, tmp_path / "out.mp4", toy_job())
        one, two = pictures(source)[5][0].astype(float), pictures(tmp_path / "out.mp4")[5][0].astype(float)
        assert 10 * np.log10(1023**2 / ((one - two)[80:] ** 2).mean()) >= 40


class TestWorkingAhead:
    def count(self) -> int:
        return sum(thread.name == "sfumato-ahead" for thread in threading.enumerate())

    def test_gives_all_in_order_and_ends(self) -> None:
        assert list(ahead(iter(range(100)), 3)) == list(range(100))
        assert self.count() == 0

    def test_carries_an_error_over(self) -> None:
        def broken() -> Iterator[int]:
            yield 1
            raise UnreadableMedia("half a film")

        work = ahead(broken())
        assert next(work) == 1
        with pytest.raises(UnreadableMedia, match="half a film"):
            next(work)
        assert self.count() == 0

    def test_ends_when_nobody_listens_any_more(self) -> None:
        def endless() -> Iterator[int]:
            while True:
                yield 1

        work = ahead(endless(), 2)
        assert next(work) == 1
        assert self.count() == 1
        work.close()
        assert self.count() == 0

    def test_no_thread_stays_behind_an_error(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        def stop(done: int, total: int | None) -> None:
            if done in (9, 31):
                raise RuntimeError

        for _ in range(2):
            with pytest.raises(RuntimeError):
                redact_video_file(clip("in.mp4"), tmp_path / "out.mp4", toy_job(), stop)
        assert self.count() == 0


def test_sights_are_as_small_as_their_boxes(clip: Make, toy_job: MakeJob) -> None:
    source = clip("in.mp4", frames=24)
    survey = surveys.survey(source, target.TARGETS[".mp4"], Settings())
    part: ChunkSights = pickle.loads(pickle.dumps(look(source, survey, 0, toy_job())))
    assert len(part.times) == 24
    assert len(pickle.dumps(part)) < 40_000
