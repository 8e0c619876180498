"""How finely a video is encoded anew: as its source was, found by a trial on a few of its frames."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

from sfumato.redaction.videos.encode import Coded, Coder, Coding
from sfumato.redaction.videos.reader import open_video
from sfumato.redaction.videos.survey import Sample, Survey
from sfumato.vision.onnx import hand_back

#: PSNR in dB: no more than this is paid for in the mean, and no less than that is taken in all but the worst
#: tenth of the pictures of a trial, whatever it costs, so that the worst of all stay over 40.
MOST, LEAST = 45.5, 41.4
#: Bits of a trial, in those of the source, that are spent between the two; all of a video takes up to half
#: as much more, since a trial is short and begins with a key frame.
BITS = 0.8
#: What one step of x264's crf changes: PSNR in dB, and the share of bits that is left (on bikes, carphone).
STEP, SHARE = 0.63, 0.9
#: Where that costs more bits than `BITS`, motion is searched for more finely, at a third more time: what it
#: gains in dB, in the mean and of the worst tenth, and the share of bits that is left (on bikes).
FINER, FINER_MEAN, FINER_LOW, FINER_SHARE = ("subq", "2"), 0.2, 0.3, 0.95
#: The crf of a trial, and the ends of what may be chosen.
TRIAL, FINEST, COARSEST = 21.0, 4.0, 28.0


def tuned(source: Path, survey: Survey, coding: Coding, most: int) -> Coding:
    """Return the coding with the quality that suits its source.

    Guarantee:
        The result depends on the file alone. Of the goals "40 dB" and "1.25 times the bits", the first wins.

    Args:
        source: the video.
        survey: of it.
        coding: how pictures are encoded; only H.264 is tuned.
        most: pixels that a frame may have.
    """
    if not coding.is_h264:
        return coding
    tries = [_try(source, survey, coding, sample, most) for sample in survey.samples]
    hand_back()  # an encoder's frames, before the next one takes as many
    decibels = [one for try_ in tries for one in try_[0]]
    ratio = sum(try_[1] for try_ in tries) / max(sum(sample.bytes for sample in survey.samples), 1)
    low = sorted(decibels)[len(decibels) // 10] if decibels else LEAST
    mean, options = math.fsum(decibels) / max(len(decibels), 1), coding.options
    crf = crf_for(mean, low, ratio)
    if ratio * SHARE ** (crf - TRIAL) > BITS:
        crf, options = crf_for(mean + FINER_MEAN, low + FINER_LOW, ratio * FINER_SHARE), (*options, FINER)
    return replace(coding, options=(*options, ("crf", f"{crf:.1f}")))


def crf_for(mean: float, low: float, ratio: float) -> float:
    """Return the crf for a video whose trial gave this PSNR and this many bits in those of the source.

    >>> crf_for(43.5, 42.0, 1.1), crf_for(46.0, 44.0, 2.0), crf_for(38.0, 36.0, 0.1)
    (22.0, 25.0, 9.0)

    Args:
        mean, low: PSNR in dB, in the mean and of all but the worst tenth.
        ratio: bits in those of the source.
    """
    finest, coarsest = TRIAL + (mean - MOST) / STEP, TRIAL + (low - LEAST) / STEP
    paid = TRIAL + math.log(BITS / max(ratio, 1e-3)) / math.log(SHARE)
    crf = min(max(finest, paid), coarsest)
    return min(max(round(crf * 2) / 2, FINEST), COARSEST)


def _try(source: Path, survey: Survey, coding: Coding, sample: Sample, most: int) -> tuple[list[float], int]:
    """Encode a sample: return the PSNR of its pictures, and their bytes."""
    coder = Coder(replace(coding, options=(*coding.options, ("crf", str(TRIAL)), ("flags", "+psnr"))))
    coded: list[Coded] = []
    step = max(round(1 / coding.rate / coding.time_base), 1)
    with open_video(source, most, checked=True) as reader:
        shots = reader.frames()
        if sample.at is not None:
            shots = reader.decoded(reader.section(sample.at, sample.packets), survey.size)
        for number, shot in enumerate(islice(shots, sample.packets)):
            coded += coder.write(coding.canvas.draw(shot.frame), number * step, step)
    coded += coder.finish()
    pixels = coding.canvas.width * coding.canvas.height
    peak = ((1 << coding.canvas.bits) - 1) ** 2 * pixels
    decibels = [10 * math.log10(peak / max(error, pixels / 4)) for error in coder.errors]
    return decibels, sum(len(one.data) for one in coded)
