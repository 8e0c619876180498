from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.videos.follow import Rules, Timeline, follow
from sfumato.vision.boxes import Boxes
from sfumato.vision.tracks import Track


def sure(label: str, score: float) -> bool:
    return score >= 0.5


def one(x: float, y: float = 20, side: float = 20, score: float = 0.9, label: str = "face") -> Boxes:
    return Boxes([[x, y, x + side, y + side]], [score], [label])


def covers(tracks: list[Track], frame: int, box: np.ndarray, label: str = "face") -> bool:
    for track in tracks:
        here = track.at(frame)
        if track.label == label and here is not None:
            inside = (here[:2] <= box[:2] + 1e-3).all() and (here[2:] >= box[2:] - 1e-3).all()
            if inside:
                return True
    return False


class TestOneThing:
    def test_a_steady_walk_is_one_track_that_covers_every_frame(self) -> None:
        path = {frame: one(3 * frame) for frame in range(0, 41)}
        seen = {frame: path[frame] for frame in range(0, 41, 5)}
        tracks = follow(seen, frames=41, cuts=(), sure=sure, rules=Rules())
        assert [(track.first, track.last) for track in tracks] == [(0, 40)]
        assert all(covers(tracks, frame, path[frame].xyxy[0]) for frame in path)

    def test_missed_key_frames_between_two_sightings_are_covered(self) -> None:
        path = {frame: one(2 * frame) for frame in range(0, 61)}
        seen = {frame: path[frame] for frame in range(0, 61, 5)} | {20: Boxes.empty(), 25: Boxes.empty()}
        tracks = follow(seen, frames=61, cuts=(), sure=sure, rules=Rules())
        assert len(tracks) == 1
        assert all(covers(tracks, frame, path[frame].xyxy[0]) for frame in path)

    def test_a_gap_longer_than_the_bridge_is_left_open(self) -> None:
        seen = {frame: Boxes.empty() for frame in range(0, 101, 5)} | {0: one(10), 100: one(10)}
        tracks = follow(seen, frames=101, cuts=(), sure=sure, rules=Rules())
        assert len(tracks) == 2
        assert not covers(tracks, 50, one(10).xyxy[0])

    def test_ends_are_held_to_the_neighbouring_looked_at_frame_and_beyond(self) -> None:
        seen = {frame: Boxes.empty() for frame in range(0, 41, 5)} | {20: one(50)}
        (track,) = follow(seen, frames=41, cuts=(), sure=sure, rules=Rules(linger=2))
        assert (track.first, track.last) == (13, 27)
        for frame in range(13, 28):
            assert covers([track], frame, one(50).xyxy[0])

    def test_a_thing_that_moves_is_held_where_it_was_and_where_it_may_have_gone(self) -> None:
        seen = {0: one(0), 5: one(10), 10: one(20), 15: Boxes.empty()}
        (track,) = follow(seen, frames=16, cuts=(), sure=sure, rules=Rules())
        assert covers([track], 14, one(20).xyxy[0])
        assert covers([track], 14, one(28).xyxy[0])

    def test_a_thing_that_jumps_is_hidden_by_the_hull_of_both_places(self) -> None:
        seen = {0: one(0), 5: one(19, y=38)}
        tracks = follow(seen, frames=6, cuts=(), sure=sure, rules=Rules())
        for frame in range(1, 5):
            assert covers(tracks, frame, one(0).xyxy[0])
            assert covers(tracks, frame, one(19, y=38).xyxy[0])

    def test_another_that_stands_where_it_was_last_seen_does_not_end_its_hold(self) -> None:
        seen = {0: one(0), 5: one(24), 10: one(23)}
        tracks = follow(seen, frames=11, cuts=(), sure=sure, rules=Rules())
        for frame in range(6, 11):
            assert covers(tracks, frame, one(24 + 4.8 * (frame - 5)).xyxy[0])
            assert covers(tracks, frame, one(23).xyxy[0])


class TestWeakBoxes:
    def test_weak_boxes_alone_give_no_track(self) -> None:
        seen = {frame: one(frame, score=0.3) for frame in range(0, 21, 5)}
        assert follow(seen, frames=21, cuts=(), sure=sure, rules=Rules()) == []

    def test_a_weak_box_extends_a_sure_one_on_both_sides(self) -> None:
        seen = {0: one(0, score=0.3), 5: one(5), 10: one(10, score=0.3), 15: Boxes.empty()}
        tracks = follow(seen, frames=16, cuts=(), sure=sure, rules=Rules(linger=0))
        assert len(tracks) == 1
        assert covers(tracks, 0, one(0).xyxy[0])
        assert covers(tracks, 10, one(10).xyxy[0])

    def test_a_sure_box_is_taken_before_a_weak_one_beside_it(self) -> None:
        both = Boxes([[8, 20, 28, 40], [4, 20, 24, 40]], [0.3, 0.9], ["face", "face"])
        seen = {0: one(0), 5: both, 10: one(8)}
        tracks = follow(seen, frames=11, cuts=(), sure=sure, rules=Rules())
        assert len(tracks) == 1
        assert np.allclose(tracks[0].at(5), both.xyxy[1])


class TestManyThings:
    def test_two_that_cross_are_both_covered_throughout(self) -> None:
        def at(frame: int) -> Boxes:
            return Boxes.concat([one(2 * frame, y=20), one(120 - 2 * frame, y=30)])

        seen = {frame: at(frame) for frame in range(0, 61, 3)}
        tracks = follow(seen, frames=61, cuts=(), sure=sure, rules=Rules(step=3))
        for frame in range(61):
            assert all(covers(tracks, frame, box) for box in at(frame).xyxy)

    def test_classes_are_never_linked(self) -> None:
        seen = {0: one(0), 5: one(1, label="person")}
        tracks = follow(seen, frames=6, cuts=(), sure=sure, rules=Rules())
        assert sorted(track.label for track in tracks) == ["face", "person"]

    def test_a_start_with_no_known_motion_is_joined_by_looking_back(self) -> None:
        # Seen once, missed, then seen moving fast: only the later motion says that they are the same.
        seen = {frame: Boxes.empty() for frame in range(0, 41, 5)}
        seen |= {0: one(0), 15: one(60), 20: one(80), 25: one(100)}
        tracks = follow(seen, frames=41, cuts=(), sure=sure, rules=Rules())
        assert len(tracks) == 1
        assert all(covers(tracks, frame, one(4 * frame).xyxy[0]) for frame in range(0, 26))


class TestCuts:
    def test_nothing_is_held_or_linked_over_a_cut(self) -> None:
        seen = {0: one(10), 5: one(10), 9: one(10), 10: one(12), 15: one(12)}
        tracks = follow(seen, frames=16, cuts={10}, sure=sure, rules=Rules())
        assert [(track.first, track.last) for track in tracks] == [(0, 9), (10, 15)]

    def test_a_cut_outside_the_video_is_no_cut(self) -> None:
        (track,) = follow({0: one(10)}, frames=3, cuts={0, 3, 99}, sure=sure, rules=Rules())
        assert (track.first, track.last) == (0, 2)


def test_a_frame_outside_the_video_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"frames 7\.\.7"):
        follow({7: one(0)}, frames=7, cuts=(), sure=sure, rules=Rules())


@pytest.mark.parametrize(
    "bad", [{"step": 0}, {"bridge": 2}, {"linger": -1}, {"lead": 2.0}, {"growth": 0.5, "most": 0.1}]
)
def test_rules_outside_their_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="Rules need"):
        Rules(**bad)  # type: ignore[arg-type]


def test_no_box_no_track() -> None:
    assert follow({0: Boxes.empty()}, frames=1, cuts=(), sure=sure, rules=Rules()) == []
    assert follow({}, frames=0, cuts=(), sure=sure, rules=Rules()) == []


class TestTimeline:
    def test_it_gives_what_the_tracks_give(self) -> None:
        tracks = [
            Track("a", 2, [[0, 0, 1, 1]] * 3),
            Track("b", 0, [[1, 1, 2, 2]] * 9),
            Track("a", 4, [[5] * 4]),
        ]
        timeline = Timeline(tracks)
        for frame in range(11):
            expected = sorted((t.label, *t.at(frame)) for t in tracks if t.at(frame) is not None)
            boxes = timeline.at(frame)
            assert sorted(zip(boxes.labels, *boxes.xyxy.T, strict=True)) == expected

    def test_it_does_not_run_backwards(self) -> None:
        timeline = Timeline([])
        timeline.at(5)
        with pytest.raises(InvalidRequest, match="after 5"):
            timeline.at(4)


# Guarantees, over drawn videos.

BOX = st.tuples(
    st.floats(0, 300, width=32),
    st.floats(0, 200, width=32),
    st.floats(1, 90, width=32),
    st.floats(1, 90, width=32),
)
SCORE = st.floats(0.125, 1, width=32)
FOUND = st.lists(st.tuples(BOX, SCORE, st.sampled_from(["face", "person"])), max_size=4)


@st.composite
def videos(draw: st.DrawFn) -> tuple[dict[int, Boxes], int, set[int], Rules]:
    frames = draw(st.integers(1, 50))
    looked = draw(st.sets(st.integers(0, frames - 1), max_size=14))
    seen = {}
    for frame in looked:
        found = draw(FOUND)
        xyxy = [[x, y, x + w, y + h] for (x, y, w, h), _, _ in found]
        seen[frame] = Boxes(xyxy, [score for _, score, _ in found], [label for _, _, label in found])
    cuts = draw(st.sets(st.integers(0, frames), max_size=3))
    step = draw(st.integers(1, 6))
    return (
        seen,
        frames,
        cuts,
        Rules(step=step, bridge=draw(st.integers(step, 30)), linger=draw(st.integers(0, 4))),
    )


@settings(max_examples=200, deadline=None)
@given(videos())
def test_every_sure_box_lies_in_its_track_and_no_track_leaves_its_scene(
    video: tuple[dict[int, Boxes], int, set[int], Rules],
) -> None:
    seen, frames, cuts, rules = video
    tracks = follow(seen, frames=frames, cuts=cuts, sure=sure, rules=rules)
    for frame, boxes in seen.items():
        for box, score, label in zip(boxes.xyxy, boxes.scores, boxes.labels, strict=True):
            if sure(label, float(score)):
                assert covers(tracks, frame, box, label)
    for track in tracks:
        assert 0 <= track.first <= track.last < frames
        assert not any(track.first < cut <= track.last for cut in cuts)


@st.composite
def walks(draw: st.DrawFn) -> tuple[list[np.ndarray], set[int], int]:
    """Draw one thing moving evenly, the looked-at frames in which it is missed, and the step."""
    frames, step = draw(st.integers(12, 60)), draw(st.integers(1, 5))
    side = draw(st.floats(10, 60))
    vx, vy = (draw(st.floats(-0.5, 0.5)) * side / step for _ in range(2))
    corner = np.array([200.0, 200.0, 200.0 + side, 200.0 + side])
    path = [corner + np.array([vx, vy, vx, vy]) * frame for frame in range(frames)]
    keys = [*range(0, frames, step)]
    missed = draw(st.sets(st.sampled_from(keys[2:-1] or keys[-1:]), max_size=3))
    return path, missed - {keys[0], keys[1], keys[-1]}, step


def gaps_covered(tracks: list[Track], path: list[np.ndarray]) -> bool:
    return all(covers(tracks, frame, box) for frame, box in enumerate(path))


def look(path: list[np.ndarray], missed: set[int], step: int) -> dict[int, Boxes]:
    seen = {frame: Boxes(path[frame][None], [0.9], ["face"]) for frame in range(0, len(path), step)}
    seen |= {frame: Boxes.empty() for frame in missed}
    return seen | {len(path) - 1: Boxes(path[-1][None], [0.9], ["face"])}


@settings(max_examples=200, deadline=None)
@given(walks())
def test_a_thing_missed_between_two_sightings_is_covered_in_every_frame(
    walk: tuple[list[np.ndarray], set[int], int],
) -> None:
    path, missed, step = walk
    seen = look(path, missed, step)
    tracks = follow(seen, frames=len(path), cuts=(), sure=sure, rules=Rules(step=step, bridge=4 * step))
    assert gaps_covered(tracks, path)


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[np.ndarray], int]:
    """Draw one thing that speeds up, slows down or turns, evenly, and the step at which it is seen."""
    step, frames = draw(st.integers(2, 6)), draw(st.integers(20, 50))
    side = draw(st.floats(10, 60))
    speed = [draw(st.floats(-0.5, 0.5)) * side / step for _ in range(2)]
    bend = [draw(st.floats(-0.15, 0.15)) * side / step**2 for _ in range(2)]
    corner = np.array([900.0, 900.0, 900.0 + side, 900.0 + side])
    time = np.arange(frames)[:, None]
    way = time * np.array([*speed, *speed]) + time**2 * np.array([*bend, *bend]) / 2
    return list(corner + way), step


@settings(max_examples=200, deadline=None)
@given(runs())
def test_a_thing_that_speeds_up_or_turns_is_covered_in_every_frame(
    run: tuple[list[np.ndarray], int],
) -> None:
    path, step = run
    rules = Rules(step=step, bridge=4 * step)
    tracks = follow(look(path, set(), step), frames=len(path), cuts=(), sure=sure, rules=rules)
    for frame, box in enumerate(path):
        # Float32 boxes and sampled slopes: a hundredth of a pixel.
        assert covers(tracks, frame, np.array([*(box[:2] + 0.01), *(box[2:] - 0.01)]))


def test_the_check_fails_for_a_twin_that_takes_every_motion_for_even() -> None:
    time = np.arange(31)[:, None]
    path = list(np.array([900.0, 900, 920, 920]) + 0.1 * time**2 * np.array([1, 0, 1, 0]))
    seen = look(path, set(), 5)
    frames = np.array(sorted(seen))
    even = np.stack([np.interp(np.arange(31), frames, np.stack(path)[frames, k]) for k in range(4)], axis=1)
    assert not gaps_covered([Track("face", 0, even)], path)
    assert gaps_covered(follow(seen, frames=31, cuts=(), sure=sure, rules=Rules()), path)


def test_the_check_fails_for_a_twin_that_does_not_interpolate() -> None:
    path = [np.array([3.0 * f, 20, 3.0 * f + 20, 40]) for f in range(31)]
    seen = look(path, {10, 15}, 5)
    twin = [
        Track("face", frame, boxes.xyxy[:1]) for frame, boxes in seen.items() if len(boxes)
    ]  # a box only where one was found
    assert not gaps_covered(twin, path)
    holding = [
        Track("face", frame, np.repeat(boxes.xyxy[:1], min(5, 31 - frame), axis=0))
        for frame, boxes in seen.items()
        if len(boxes)
    ]  # the last box held for a step, as frame memories do
    assert not gaps_covered(holding, path)
    assert gaps_covered(follow(seen, frames=31, cuts=(), sure=sure, rules=Rules()), path)


def test_a_box_that_shrinks_for_one_look_is_widened_to_its_neighbours() -> None:
    half = Boxes([[20, 20, 40, 30]], [0.9], ["face"])
    seen = {0: one(20, side=20), 5: half, 10: one(20, side=20)}
    (track,) = follow(seen, frames=11, cuts=(), sure=sure, rules=Rules())
    for frame in range(11):
        assert covers([track], frame, one(20).xyxy[0])
