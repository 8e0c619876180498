"""Frames as pixels, and what a survey knows without opening the file again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from sfumato.redaction.settings import Settings
from sfumato.redaction.videos.survey import survey
from sfumato.redaction.videos.target import TARGETS

Make = Callable[..., Path]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_rgb_is_what_a_frame_gives_by_itself_whatever_came_before(clip: Make, pix_fmt: str) -> None:
    for name, size in (("one.mp4", (128, 96)), ("two.mp4", (100, 50))):
        source = clip(name, pix_fmt=pix_fmt, size=size, frames=4)
        canvas = survey(source, TARGETS[".mp4"], Settings()).canvas
        with av.open(str(source)) as container:
            for frame in container.decode(video=0):
                assert np.array_equal(canvas.rgb(frame), frame.to_ndarray(format="rgb24"))


def test_a_survey_says_whether_there_is_more_than_pictures(clip: Make) -> None:
    alone, sound = clip("alone.mp4", frames=4), clip("sound.mp4", frames=4, audio=["aac"])
    assert survey(alone, TARGETS[".mp4"], Settings()).alone
    assert not survey(sound, TARGETS[".mp4"], Settings()).alone
