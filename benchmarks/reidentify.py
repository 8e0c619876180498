"""Who is it? A recogniser against every cover, single frames and the mean of a whole track.

Faces: an AT&T-style set under SFUMATO_TESTDATA (faces/sNN/*.pgm), else the largest labelled faces of
labels/faces.json, one picture to a person, shifted, scaled, turned, flipped, lit and made noisy. One picture
to a person flatters the attacker: nobody is easier to know than the same picture again. Heads are cut out and
laid on random backgrounds, so that only the inside of a region can identify (_faces.py).

The recogniser is PCA and a shrunken LDA. "parrot" is trained on covered faces, "naive" on clear ones. It sees
the region as it lies in the output, or the region with a quarter more on every side ("context"); one frame,
or the mean of all frames of a track, each covered by itself. Tracks that are tested were not trained on.

Peers: deface's own drawing code, over our larger region, which favours it. The control is a broken fill that
lets some of the inside through: the attack must see it. dp-pixelate shows one grid per track, of its first
frame, with noise for 16 pixels, at epsilon 0.5 and 2; its broken twin draws noise anew in every frame, and
the mean of a track must give it away.

Where we are: benchmarks/README.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from _bench import arguments, report
from _faces import Faces, Pixels, load, track
from sfumato.core.event import PureDP
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.redaction.covers import CATALOGUE, form_of
from sfumato.redaction.covers.dp_pixelate import DpPixelate
from sfumato.redaction.covers.dp_pixelate import build as build_noisy
from sfumato.redaction.grids import Painter, looks_in_picture

DATA = Path(os.environ.get("SFUMATO_TESTDATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CONTROL, CLEAR = "control: fill, 5 % let through", "clear"
#: Losses at which dp-pixelate is attacked; and its twin, which draws anew in every frame, at the first.
EPSILONS = (0.5, 2)
FRESH = f"control: dp-pixelate, epsilon {EPSILONS[0]}, fresh noise"
#: View -> how much of the region's side is taken in on each side, and the size that it is brought to.
VIEWS = {"region": (0.0, (24, 32)), "context": (0.25, (30, 40))}
FRAMES, SINGLES, FOLDS = 300, 10, 3
COMPONENTS, SHRINKAGE = 80, 0.2

Draw = Callable[[Pixels, NDArray[np.int32]], None]


@dataclass
class Seen:
    """What the attacker has of one cover in one view."""

    single: list[NDArray[Any]] = field(default_factory=list)
    average: list[NDArray[Any]] = field(default_factory=list)


class OneGrid:
    """Dp-pixelate over the frames of a track: the grid of the first is shown in all."""

    def __init__(self, cover: DpPixelate, *, fresh: bool) -> None:
        self._cover, self._fresh, self._looks = cover, fresh, None

    def __call__(self, frame: Pixels, region: NDArray[np.int32]) -> None:
        form = form_of(frame)
        if self._looks is None or self._fresh:
            self._looks = looks_in_picture(self._cover, frame, form, region)
        Painter(self._looks, region, form=form).apply(frame, region)


def permit() -> Permit:
    """Return a permit with room for noise; a gate in memory, since nothing leaves this process."""
    people = "[populations.p]\nunit = '16 pixels'\nrelation = 'replace-one'\nepsilon = 9"
    rules = f"[project]\nname = 'bench'\n{people}"
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=9, delta=0, unit="16 pixels", relation="replace-one")
    ledger.open_share("p", "all", kind="filter", epsilon=9, delta=0)
    plan = Plan(
        action="redact",
        mechanism="benchmark",
        guarantee="proven",
        statement="grids for an attack",
        event=PureDP(1),
        population="p",
        share="all",
    )
    return Gate(Policy.parse(rules), ledger).open(plan)


def noisy(right: Permit) -> dict[str, Draw]:
    """Return dp-pixelate for one track, by name."""
    built = {epsilon: build_noisy(epsilon=epsilon, pixels=16).charged(right) for epsilon in EPSILONS}
    return {
        **{f"dp-pixelate, epsilon {epsilon}": OneGrid(one, fresh=False) for epsilon, one in built.items()},
        FRESH: OneGrid(built[EPSILONS[0]], fresh=True),
    }


def covers() -> dict[str, Draw]:
    """Return what is attacked, by name."""
    from deface.deface import draw_det

    def peer(**look: Any) -> Draw:
        def draw(frame: Pixels, region: NDArray[np.int32]) -> None:
            draw_det(frame, 1.0, 0, *(int(value) for value in region[0]), **look)

        return draw

    built = {name: CATALOGUE.build(name) for name in CATALOGUE.names if name != "dp-pixelate"}
    return {
        CLEAR: lambda frame, region: None,
        **{name: cover.apply for name, cover in built.items()},
        "deface blur, box": peer(replacewith="blur", ellipse=False),
        "deface blur, ellipse": peer(replacewith="blur", ellipse=True),
        "deface mosaic": peer(replacewith="mosaic", mosaicsize=20),
    }


def outlined() -> frozenset[str]:
    """Return the names of the covers that are laid along the outline of a head, as a run lays them."""
    built = {name: CATALOGUE.build(name) for name in CATALOGUE.names if name != "dp-pixelate"}
    return frozenset(name for name, cover in built.items() if getattr(cover, "outlined", False))


def crop(frame: Pixels, region: NDArray[np.int32], view: str) -> NDArray[np.float32]:
    """Return what the attacker cuts out of a frame, as one row of numbers."""
    more, size = VIEWS[view]
    x1, y1, x2, y2 = (int(value) for value in region[0])
    dx, dy = round((x2 - x1) * more), round((y2 - y1) * more)
    part = frame[max(0, y1 - dy) : y2 + dy, max(0, x1 - dx) : x2 + dx]
    return cv2.resize(part.astype(np.float32), size, interpolation=cv2.INTER_AREA).ravel()


def watch(person: int, pictures: list[Pixels], tracks: int) -> dict[tuple[str, str], Seen]:
    """Cover every frame of every track of a person in every way, and keep what the attacker needs.

    Returns:
        (cover, view) -> rows, by track, then (for single frames) by frame.
    """
    cv2.setNumThreads(1)
    draws, right, rounded = covers(), permit(), outlined()
    seen = {(name, view): Seen() for name in (*draws, *noisy(right), CONTROL) for view in VIEWS}
    for number in range(tracks):
        rng = np.random.default_rng([person, number])
        total: dict[tuple[str, str], NDArray[np.float64]] = {}
        picture = pictures[number % len(pictures)]
        draws |= noisy(right)
        for index, (frame, region, outline) in enumerate(track(picture, FRAMES, rng)):
            covered = {name: frame.copy() for name in draws}
            for name, draw in draws.items():
                draw(covered[name], outline if name in rounded else region)
            leak = 0.95 * covered["fill"] + 0.05 * frame
            for name, copy in {**covered, CONTROL: np.rint(leak).astype(np.uint8)}.items():
                for view in VIEWS:
                    row = crop(copy, region, view)
                    total[name, view] = total.get((name, view), 0) + row.astype(np.float64)
                    if index % (FRAMES // SINGLES) == 0:
                        seen[name, view].single.append(row)
        for key, rows in total.items():
            seen[key].average.append(rows / FRAMES)
    return seen


def watch_all(faces: Faces, tracks: int) -> dict[tuple[str, str], Seen]:
    """Return what is seen of everybody, by person, in as many processes as there are cores."""
    everybody = range(len(faces.people))
    # Forked after libraries began threads, a process may wait for ever.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(watch, everybody, faces.people, [tracks] * len(everybody)))
    return {
        key: Seen(
            [row for part in parts for row in part[key].single],
            [row for part in parts for row in part[key].average],
        )
        for key in parts[0]
    }


class Recogniser:
    """PCA, then the nearest mean in a space where the spread within a person is one (shrunken LDA)."""

    def __init__(self, rows: NDArray[Any], people: NDArray[np.int64]) -> None:
        self._mean, self._scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
        standard = (rows - self._mean) / self._scale
        # By the products of rows: there are fewer of them than numbers in one.
        powers, mixes = np.linalg.eigh(standard @ standard.T)
        kept = np.flatnonzero(powers > 1e-9 * max(float(powers[-1]), 1.0))[-COMPONENTS:]
        self._axes = standard.T @ (mixes[:, kept] / np.sqrt(powers[kept]))
        flat = standard @ self._axes
        self._people = np.unique(people)
        means = np.stack([flat[people == one].mean(axis=0) for one in self._people])
        within = flat - means[np.searchsorted(self._people, people)]
        spread = within.T @ within / max(len(rows) - len(means), 1)
        size = max(len(spread), 1)
        level = float(np.trace(spread)) / size
        values, vectors = np.linalg.eigh(
            (1 - SHRINKAGE) * spread + (SHRINKAGE * level + 1e-12) * np.eye(size)
        )
        self._whiten = vectors / np.sqrt(values)
        self._means = means @ self._whiten

    def name(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Return the person that each row is taken for."""
        flat = ((rows - self._mean) / self._scale) @ self._axes @ self._whiten
        away = (flat**2).sum(axis=1)[:, None] - 2 * flat @ self._means.T + (self._means**2).sum(axis=1)
        return self._people[away.argmin(axis=1)]


class Attacker:
    """Recognisers for one cover in one view: one for each fold of tracks, trained on the others."""

    def __init__(self, rows: list[NDArray[Any]], people: int, tracks: int) -> None:
        each = len(rows) // (people * tracks)
        self._who = np.repeat(np.arange(people), tracks * each)
        self._fold = np.tile(np.repeat(np.arange(tracks) % FOLDS, each), people)
        learn = np.array(rows, np.float64)
        self._models = [
            Recogniser(learn[self._fold != one], self._who[self._fold != one]) for one in range(FOLDS)
        ]

    def rate(self, rows: list[NDArray[Any]]) -> float:
        """Return the share of rows named right, each by a recogniser that saw nothing of its track."""
        ask = np.array(rows, np.float64)
        right = 0
        for one, model in enumerate(self._models):
            mine = self._fold == one
            right += int((model.name(ask[mine]) == self._who[mine]).sum())
        return right / len(ask)


def attack(seen: dict[tuple[str, str], Seen], people: int, tracks: int) -> dict[str, dict[str, float]]:
    """Return cover -> attack -> share of people re-identified."""
    table: dict[str, dict[str, float]] = {}
    for view in VIEWS:
        for kind in ("single", "average"):
            naive = Attacker(getattr(seen[CLEAR, view], kind), people, tracks)
            for name in (name for name, other in seen if other == view):
                rows = getattr(seen[name, view], kind)
                row = table.setdefault(name, {})
                row[f"parrot_{view}_{kind}"] = Attacker(rows, people, tracks).rate(rows)
                row[f"naive_{view}_{kind}"] = naive.rate(rows)
    return table


def main() -> None:
    options = arguments(str(__doc__).splitlines()[0])
    most, tracks = (8, 6) if options.quick else (20, 6)
    try:
        faces = load(DATA, most)
    except FileNotFoundError as reason:
        report({"skipped": str(reason)}, [], options.json)
        return
    people = len(faces.people)
    table = attack(watch_all(faces, tracks), people, tracks)
    chance = 1 / people
    columns = list(table[CLEAR])
    order = sorted(columns, key=lambda one: (one.startswith("naive"), "average" in one))
    lines = [
        f"{people} people ({faces.source}), {tracks} tracks of {FRAMES} frames each, {FOLDS} folds; "
        f"{people * tracks * SINGLES} single frames and {people * tracks} means tested; chance {chance:.1%}",
        f"{'share re-identified':34s}" + "".join(f"{one.replace('_', ' '):>24s}" for one in order),
    ]
    lines += [f"{name:34s}" + "".join(f"{row[one]:24.1%}" for one in order) for name, row in table.items()]
    worst = max(max(table[name].values()) for name in ("fill", "solid"))
    result = {
        "people": people,
        "chance": chance,
        "fill_worst_over_chance": max(table["fill"].values()) / chance,
        "solid_worst_over_chance": max(table["solid"].values()) / chance,
        "secure_within_twice_chance": worst <= 2 * chance,
        "control_seen": table[CONTROL]["parrot_region_single"] > 2 * chance,
        **{
            f"dp_pixelate_{kind}_epsilon_{epsilon}": table[f"dp-pixelate, epsilon {epsilon}"][
                f"parrot_region_{kind}"
            ]
            for epsilon in EPSILONS
            for kind in ("single", "average")
        },
        "fresh_noise_averaged": table[FRESH]["parrot_region_average"],
    }
    report({**result, **({"rates": table} if options.json else {})}, lines, options.json)


if __name__ == "__main__":
    main()
