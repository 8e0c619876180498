"""Scaling to a canvas and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest
from sfumato.vision.letterbox import GREY, fit, letterbox

sides = st.integers(1, 300)


def check_undo(undo, gain, offset, width, height):
    """The picture's corners, in canvas pixels, must come back exactly."""
    new = width * gain[0], height * gain[1]
    corners = np.array([[offset[0], offset[1], offset[0] + new[0], offset[1] + new[1]]], np.float32)
    np.testing.assert_allclose(undo(corners), [[0, 0, width, height]], atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.floats(0.05, 3))
def test_corners_come_back(width, height, scale):
    box = fit(np.full((height, width, 3), 200, np.uint8), scale)
    assert not any(side % 32 for side in box.pixels.shape[:2])
    check_undo(box.undo, box.gain, box.offset, width, height)
    left, top = box.offset
    inside = box.pixels[top : top + round(height * box.gain[1]), left : left + round(width * box.gain[0])]
    assert (inside == 200).all()
    assert (box.pixels == GREY).all(axis=2).sum() == box.pixels[..., 0].size - inside[..., 0].size


def test_one_gain_for_both_axes_is_caught():
    box = letterbox(np.zeros((427, 640, 3), np.uint8), 320 / 640, (320, 320))
    common = 320 / 640

    def broken(xyxy):
        return (xyxy - np.array(box.offset * 2)) / common

    with pytest.raises(AssertionError):
        check_undo(broken, box.gain, box.offset, 640, 427)


def test_the_picture_is_centred_as_the_reference_does():
    box = letterbox(np.zeros((427, 640, 3), np.uint8), 1.0, (640, 640))
    assert box.offset == (0, round((640 - 427) / 2 - 0.1))
    assert box.gain == (1.0, 1.0)


def test_a_picture_without_pixels_and_a_canvas_too_small():
    with pytest.raises(InvalidRequest, match="no pixels"):
        letterbox(np.zeros((0, 5, 3), np.uint8), 1.0, (32, 32))
    with pytest.raises(InvalidRequest, match="does not fit"):
        letterbox(np.zeros((50, 50, 3), np.uint8), 1.0, (32, 64))


def test_shrinking_a_lot_averages():
    lines = np.zeros((400, 400, 3), np.uint8)
    lines[::2] = 255
    box = letterbox(lines, 0.1, (40, 40))
    assert abs(int(box.pixels.mean()) - 127) <= 1
    assert box.pixels.std() < 2


def test_least_sides_hold():
    assert fit(np.zeros((20, 500, 3), np.uint8), 1.0, least=160).pixels.shape[:2] == (160, 512)
