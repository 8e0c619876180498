"""Whose pixels are whose: a frame's hidden places cut into parts that no two sets of tracks share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: x1, y1, x2, y2 in pixels, half open.
Rect = tuple[int, int, int, int]
#: Numbers of the tracks that all hide a place, rising.
Owners = tuple[int, ...]


def parcels(regions: Sequence[tuple[int, Rect]]) -> dict[Owners, list[Rect]]:
    """Return the places that are hidden by one set of tracks exactly, for each such set.

    >>> parcels([(0, (0, 0, 4, 4)), (1, (2, 0, 6, 4))])
    {(0,): [(0, 0, 2, 4)], (0, 1): [(2, 0, 4, 4)], (1,): [(4, 0, 6, 4)]}

    Guarantee:
        Every pixel of a region lies in one place of one set, that of all tracks with a region there; the
        places of different sets share no pixel.

    Args:
        regions: track number and rectangle; a track may have several.
    """
    found: dict[Owners, list[Rect]] = {}
    for group in _groups(regions):
        numbers = sorted({number for number, _ in group})
        if len(numbers) == 1 and len(group) == 1:
            found.setdefault((numbers[0],), []).append(group[0][1])
            continue
        for owners, rects in _cut(group, numbers).items():
            found.setdefault(owners, []).extend(rects)
    return dict(sorted(found.items()))


def _groups(regions: Sequence[tuple[int, Rect]]) -> list[list[tuple[int, Rect]]]:
    """Return regions that hang together by overlaps, group by group."""
    if not regions:
        return []
    boxes = np.array([rect for _, rect in regions], np.int64)
    low, high = boxes[:, :2], boxes[:, 2:]
    meet = np.all(low[:, None] < high, axis=2) & np.all(low < high[:, None], axis=2)
    near = [np.flatnonzero(row).tolist() for row in meet]
    left, groups = set(range(len(regions))), []
    while left:
        edge = [min(left)]
        left.discard(edge[0])
        members = []
        while edge:
            at = edge.pop()
            members.append(at)
            fresh = [other for other in near[at] if other in left]
            left.difference_update(fresh)
            edge += fresh
        groups.append([regions[at] for at in sorted(members)])
    return groups


def _cut(group: Sequence[tuple[int, Rect]], numbers: Sequence[int]) -> dict[Owners, list[Rect]]:
    """Cut overlapping regions along all their edges, and join what belongs to the same tracks."""
    xs = sorted({x for _, (x1, _, x2, _) in group for x in (x1, x2)})
    ys = sorted({y for _, (_, y1, _, y2) in group for y in (y1, y2)})
    cells = np.zeros((len(ys) - 1, len(xs) - 1), object)  # whole numbers of any size, a bit per track
    for number, (x1, y1, x2, y2) in group:
        part = np.s_[ys.index(y1) : ys.index(y2), xs.index(x1) : xs.index(x2)]
        cells[part] |= 1 << numbers.index(number)
    done: dict[Owners, list[Rect]] = {}
    open_: dict[tuple[int, int, int], int] = {}
    for row in range(len(cells) + 1):
        here = _runs(cells[row]) if row < len(cells) else []
        for run in [run for run in open_ if run not in here]:
            start, stop, bits = run
            owners = tuple(number for place, number in enumerate(numbers) if bits >> place & 1)
            done.setdefault(owners, []).append((xs[start], ys[open_.pop(run)], xs[stop], ys[row]))
        for run in here:
            open_.setdefault(run, row)
    return done


def _runs(row: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (start, stop, value) of runs of equal cells that are not nought."""
    runs, start = [], 0
    for at in range(1, len(row) + 1):
        if at == len(row) or row[at] != row[start]:
            if row[start]:
                runs.append((start, at, int(row[start])))
            start = at
    return runs
