"""Looking: which frames of a video are looked at, how closely, and when to look back."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

import numpy as np

from sfumato.redaction.settings import WRITTEN
from sfumato.redaction.videos.doubts import near, open_question
from sfumato.redaction.videos.frames import Canvas, CutFinder
from sfumato.redaction.videos.reader import Shot
from sfumato.redaction.videos.second_look import SecondLook, with_new
from sfumato.redaction.videos.times import reaches
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder

#: Share of the full threshold from which a box may extend or bridge a track.
WEAK = 0.5
#: Longest time, in seconds, between two looks: in a slow video every k-th frame would be too seldom.
LONGEST_STEP = Fraction(1, 2)
#: Longest time, in seconds, between two full looks.
FULL_STEP = Fraction(1)
#: Seconds for which a thing that was lost is looked for more closely.
PATIENCE = 2
#: Memory for frames since the last full look, in bytes; where they need more, full looks come more often.
ROOM = 48 << 20
#: How far the fastest thing in sight may move between two looks, in sides of its own.
STRIDE = 0.8


class Notebook(Protocol):
    """What looking reads and writes: see `Scan`."""

    canvas: Canvas
    time_base: Fraction
    rate: Fraction
    sights: dict[int, Boxes]
    cuts: set[int]

    def step(self, every: int) -> int:
        """Return the usual distance, in frames, of two looked-at frames."""
        ...

    def is_gap(self, before: int, now: int) -> bool:
        """Say whether so much time lies between two frames that nobody knows where things went."""
        ...


class Looker:
    """Takes frames in order and notes what is seen in some of them.

    Frames are looked at every so often, sooner where something moves fast: in full at a scene's first and
    last frame and at least once a second, else at a smaller copy, and closer where something got lost in it.
    Where a look shows something new, the frames since the last full look are looked at again around its
    place, backwards, until it is not there; where two looks leave open what was between them, so is the
    middle.

    Guarantee:
        - The first and the last frame, both sides of a cut, and every `every`-th frame are looked at.
        - Frames since the last full look are kept, and no others: at most `ROOM` bytes or `every` frames.
        - Equal frames give equal notes: nothing depends on time or threads.

    Args:
        notes: gets `sights` and `cuts`.
        every: most frames from one look to the next; 1: all are looked at in full.
        finder: finds things in a picture.
    """

    def __init__(self, notes: Notebook, every: int, finder: Finder) -> None:
        self._notes, self._every = notes, every
        # Writing is found in other pieces at every look: nothing could be asked about it.
        self._least = {label: finder.threshold(label) for label in finder.hide if label not in WRITTEN}
        self._glances = finder.glances and every > 1
        self.cuts = CutFinder()
        self._eye = SecondLook(
            finder, weak=WEAK, step=notes.step(every), patience=round(PATIENCE * notes.rate)
        )
        self._kept: deque[Shot] = deque()
        self._looked: Shot | None = None
        self._pace = every

    def see(self, shot: Shot) -> None:
        """Take the next frame: look at it where it is due, and on both sides of a cut or a gap in time."""
        before = self._kept[-1] if self._kept else None
        if self.cuts.is_cut(shot.frame) or (before is not None and self._notes.is_gap(before.pts, shot.pts)):
            self.finish()
            if before is not None:
                self._notes.cuts.add(shot.index)
            self._kept.clear()
            self._eye.forget()
            self._looked, self._pace = None, self._every
        self._kept.append(shot)
        if self._looked is None or self._is_due(self._looked, shot):
            self._look(self._is_full_due())

    def finish(self) -> None:
        """Look at the last frame of a scene."""
        if self._looked is not None and self._looked.index < self._kept[-1].index:
            self._look(full=True)

    def _is_due(self, looked: Shot, shot: Shot) -> bool:
        late = reaches(shot.pts - looked.pts, self._notes.time_base, LONGEST_STEP)
        return late or shot.index - looked.index >= self._pace

    def _is_full_due(self) -> bool:
        """Say whether the newest frame is to be looked at in full: the frames kept begin with such a one."""
        first, last = self._kept[0], self._kept[-1]
        if first is last or not self._glances:
            return True
        late = reaches(last.pts - first.pts, self._notes.time_base, FULL_STEP)
        return late or (len(self._kept) + self._every) * _bytes(last) > ROOM

    def _look(self, full: bool) -> None:
        """Look at the newest frame, and back at what it puts in question."""
        eye, sights, shot, looked = self._eye, self._notes.sights, self._kept[-1], self._looked
        picture = self._notes.canvas.rgb(shot.frame)
        found = None if full else eye.glance(shot.index, picture)
        full = found is None
        if found is None:
            found = eye.full(picture)
        sights[shot.index] = eye.closer(shot.index, picture, found)
        news = eye.news(shot.index, sights[shot.index])
        self._walk_back(news if full else eye.was_faint(news, *picture.shape[1::-1]))
        if not eye.settled(shot.index, sights[shot.index]):
            for one, two in pairwise([kept.index for kept in self._kept if kept.index in sights]):
                self._halve(one, two)
        for index in range(looked.index + 1 if looked else shot.index, shot.index + 1):
            if index in sights:
                eye.remember(index, sights[index])
        self._looked = shot
        self._forget(full)
        self._pace = max(min(int(STRIDE / max(eye.haste(), 1e-3)), self._every), min(2, self._every))

    def _forget(self, full: bool) -> None:
        """Let go of frames that nobody will look back at."""
        newest = self._kept[-1]
        if full:
            self._kept = deque([newest])
        elif (len(self._kept) + self._every) * _bytes(newest) > ROOM / 2:
            self._kept = deque(shot for shot in self._kept if shot.index in self._notes.sights)

    def _walk_back(self, news: Boxes) -> None:
        """Look for each new thing in frames that were glanced at, the latest first, until it is not there.

        They were looked at in a smaller copy, or it was too faint: now its place is known.
        """
        sights = self._notes.sights
        earlier = [shot for shot in list(self._kept)[-2:0:-1] if shot.index in sights]
        for number in range(len(news)):
            thing = news.keep(np.arange(len(news)) == number)
            for shot in earlier:
                found = self._eye.nearby(self._notes.canvas.rgb(shot.frame), thing)
                sights[shot.index] = with_new(sights[shot.index], found)
                thing = near(found, thing)
                if not len(thing):
                    break
                thing = thing.keep(np.arange(len(thing)) == int(np.argmax(thing.scores)))

    def _halve(self, one: int, two: int) -> None:
        """Look at the middle of two looks while they leave open what was between them."""
        sights = self._notes.sights
        between = [shot for shot in self._kept if one < shot.index < two]
        if between and open_question(sights[one], sights[two], self._least):
            shot = between[(len(between) - 1) // 2]
            picture = self._notes.canvas.rgb(shot.frame)
            sights[shot.index] = self._eye.again(picture, sights[one], sights[two])
            self._halve(one, shot.index)
            self._halve(shot.index, two)


def _bytes(shot: Shot) -> int:
    return sum(plane.buffer_size for plane in shot.frame.planes)
