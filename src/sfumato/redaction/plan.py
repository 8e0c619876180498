"""What will happen, and all that can be refused, before any file is touched."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.core.event import Event, PureDP
from sfumato.core.files import digest_of
from sfumato.core.gate import UNDECLARED, Permit, Plan
from sfumato.core.policy import Policy
from sfumato.redaction.chosen import is_secure
from sfumato.redaction.covers import CATALOGUE, Cover
from sfumato.redaction.covers.dp_pixelate import DpPixelate
from sfumato.redaction.held import FinderFactory as FinderFactory
from sfumato.redaction.held import held, unused
from sfumato.redaction.job import Job
from sfumato.redaction.looks import noisy_cover
from sfumato.redaction.pricing import expected, fitted, priced
from sfumato.redaction.request import Request, resolve
from sfumato.redaction.settings import Settings
from sfumato.redaction.sizes import LARGEST, Choose, SizedFinder, at_least_default, by_frame
from sfumato.redaction.zones import picks
from sfumato.vision.choice import ALIASES, expand, known_classes, unknown_class
from sfumato.vision.finder import Finder, make_finder
from sfumato.vision.onnx import cores

if TYPE_CHECKING:
    from sfumato.mechanisms.laplace import Noise
    from sfumato.redaction.sealed.room import Room

Kind = Literal["image", "video"]
KINDS: tuple[Kind, ...] = ("image", "video")

#: More inference threads than this many times the cores only take memory.
THREADS_PER_CORE = 4

#: What a receipt says where originals are sealed.
SEALED = (
    "What was hidden is kept by the project, encrypted: whoever has its vault's key and the right to restore "
    "can put it back. The outputs themselves hold nothing of it."
)
#: Inference threads for frames of a video. One number holds for all workers of a run, on this machine or
#: others: how a network's sums are shared out decides how they are rounded.
VIDEO_THREADS = 1

#: What is known about cosmetic covers, measured on 40 people.
COSMETIC = "trained recognisers undo it: 96 % re-identified through every peer's blur, chance 2.5 %"


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How a finder is built, here or on another machine: the same every time.

    Args:
        settings: as asked for, with the number of inference threads.
        factory: builds a finder for settings.
        choose: the size of the input by the picture; None: as the settings say.
    """

    settings: Settings
    factory: FinderFactory
    choose: Choose | None

    def build(self) -> Finder:
        """Build the finder."""
        if self.choose is None:
            return self.factory(self.settings)
        return SizedFinder(lambda size: self.factory(replace(self.settings, size=size)), self.choose)


@dataclass(frozen=True, slots=True)
class Ready:
    """A redaction with everything at hand: nothing is left that could be missing or misspelt.

    Args:
        plan: what the gate is asked for.
        jobs: kind of file -> the parts that do it; only for the kinds asked for.
        notes: where the policy went beyond the request.
        room: keeps what is hidden, encrypted; None: nothing of it is kept.
        noise: of the permit, where a cover draws noise.
        recipes: kind of file -> how the finder of its job is built.
    """

    plan: Plan
    jobs: Mapping[Kind, Job]
    notes: tuple[str, ...] = ()
    recipes: Mapping[Kind, Recipe] = field(default_factory=dict)
    room: Room | None = None
    noise: Noise | None = None

    def charged(self, permit: Permit) -> Ready:
        """Return the redaction whose noise comes through a permit; itself where no cover draws any."""
        if noisy_cover(next(iter(self.jobs.values()))) is None:
            return self
        from sfumato.mechanisms.laplace import Noise

        noise = Noise(permit)

        def charge(cover: Cover) -> Cover:
            return cover.charged(permit, noise) if isinstance(cover, DpPixelate) else cover

        return replace(
            self, noise=noise, jobs={kind: job.with_covers(charge) for kind, job in self.jobs.items()}
        )

    def settled(self) -> Event | None:
        """Return what a run cost where it drew no noise, which boxes alone decide; None: as planned."""
        return PureDP(0) if self.noise is not None and not self.noise.drawn else None

    @property
    def settings(self) -> Settings:
        """The settings, as used for the first kind of file."""
        return next(iter(self.jobs.values())).settings

    @property
    def secure(self) -> bool:
        """Whether every cover in use leaves nothing of what it hides."""
        return all(one.secure for one in next(iter(self.jobs.values())).all_covers)

    @property
    def strength(self) -> str:
        """The weakest of the covers in use: "secure", "noisy" or "cosmetic"."""
        covers = [one for one in next(iter(self.jobs.values())).all_covers if not one.secure]
        noisy = all(isinstance(one, DpPixelate) for one in covers)
        return "secure" if not covers else "noisy" if noisy else "cosmetic"

    @property
    def models(self) -> list[dict[str, str]]:
        """The models in use: name, sha256, licence."""
        found = {one.name: one for job in self.jobs.values() for one in job.finder.weights.values()}
        return [{"name": one.name, "sha256": one.sha256, "licence": one.licence} for one in found.values()]

    @property
    def detector_seconds(self) -> float:
        """Time spent inside the detectors so far, summed over threads."""
        finders = {id(job.finder): job.finder for job in self.jobs.values()}
        return sum(finder.seconds for finder in finders.values())

    def digest(self, kind: Kind) -> str:
        """Return a hash of all that decides the outputs of one kind: settings, models, size of the input."""
        job = self.jobs[kind]
        weights = {one.name: one.sha256 for one in job.finder.weights.values()}
        size = self.plan.parameters["detector_size"][kind]
        noisy = noisy_cover(job)
        more = {} if noisy is None else {"noise": noisy.options}
        return digest_of({"settings": job.settings.digest(weights), "size": size, **more})


def prepare(
    request: Request | Settings | None = None,
    *,
    policy: Policy | None = None,
    root: Path | None = None,
    kinds: Iterable[Kind] = ("image",),
    purpose: str = UNDECLARED,
    finder: FinderFactory | None = None,
    workers: int = 1,
) -> Ready:
    """Make a request ready to run.

    Guarantee:
        Unknown classes, covers and detectors, missing models and packages, values out of range and covers
        that the policy forbids are refused here; no input is opened and nothing is written.

    Args:
        request: what is asked for; `Settings` ask for exactly these.
        policy: the project's; None: outside a project.
        root: folder that relative model paths in the policy start from.
        kinds: kinds of files that there are: "image", "video".
        purpose: what the outputs are for, a purpose of the policy.
        finder: builds the finders; None: those of the catalogue.
        workers: pictures that could be worked on at once; they share the inference threads where the
            request names none.

    Raises:
        UnknownName, MissingModel, MissingExtra, InvalidRequest: it cannot be done as asked.
        PolicyRefused: a rule of the policy forbids it.
    """
    if not isinstance(request, Request | Settings | None):
        raise InvalidRequest(f"settings must be a Settings or a Request, got {request!r}")
    wishes = Request.of(request) if isinstance(request, Settings) else request or Request()
    if wishes.threads > (most := THREADS_PER_CORE * cores()):
        raise InvalidRequest(f"threads must be at most {most}, on {cores()} cores, got {wishes.threads}")
    resolved = resolve(wishes, policy, root)
    cover = fitted(build_cover(resolved.settings), policy)
    wanted = tuple(dict.fromkeys(kinds)) or ("image",)
    factory = finder or build_finder
    notes = [*resolved.notes]
    # A cover that reads a file shows it by its hash: what decides the output, and no path of this machine.
    shown = getattr(cover, "options", resolved.settings.cover_options)
    settings = replace(resolved.settings, cover_options=shown)
    if policy is not None:
        settings = held(settings, policy, factory, notes)
    jobs, recipes = _jobs(settings, cover, wanted, factory, workers, policy)
    _check_kept(next(iter(jobs.values())).settings)
    notes += unused(wishes, next(iter(jobs.values())).finder)
    plan = Plan(
        action="redact",
        mechanism="redaction",
        guarantee="heuristic",
        statement=_statement(next(iter(jobs.values()))),
        limits=_limits(jobs),
        purpose=purpose,
    )
    noisy = noisy_cover(next(iter(jobs.values())))
    if noisy is not None:
        plan = priced(plan, noisy)
        notes.append(expected(noisy))
    ready = Ready(plan, jobs, tuple(notes), recipes=recipes)
    parameters = {
        "settings": ready.settings.describe(),
        "detector_size": {kind: _size_in_words(kind, job.settings, policy) for kind, job in jobs.items()},
        "models": ready.models,
        "cover": ready.strength,
        **({} if noisy is None else {"noise": noisy.options}),
    }
    return replace(ready, plan=replace(plan, parameters=parameters))


def with_sealing(ready: Ready, room: Room) -> Ready:
    """Return a redaction that keeps what it hides, encrypted, and whose plan says so."""
    plan = ready.plan
    parameters = {**plan.parameters, "sealed": True}
    sealed = replace(plan, parameters=parameters, limits=(*plan.limits, SEALED))
    return replace(ready, plan=sealed, room=room)


def _check_kept(settings: Settings) -> None:
    """Refuse to keep a thing of a class that nothing hides: it would have no effect, and look like one."""
    for pick in picks(settings.keep):
        if pick.label not in settings.hide:
            raise InvalidRequest(
                f"{pick.label}@{pick.x:g},{pick.y:g} cannot be kept: {pick.label} is not among the classes "
                f"that are hidden ({', '.join(settings.hide) or 'none'})"
            )


def build_finder(settings: Settings) -> Finder:
    """Build the finder of the catalogue for these settings."""
    if not settings.hide:  # zones alone
        return Finder([], ())
    return make_finder(
        settings.hide,
        detectors=settings.detectors,
        models=settings.models,
        thresholds=settings.thresholds,
        size=settings.size,
        threads=settings.threads,
    )


def build_covers(settings: Settings, cover: Cover, policy: Policy | None = None) -> dict[str, Cover]:
    """Build the covers of classes and zones that have one of their own.

    Args:
        settings: with classes by their own names.
        cover: the one of all others.
        policy: the project's, for covers that are charged to a budget.
    """
    built: dict[str, Cover] = {settings.cover: cover}
    result = {}
    for label in (*settings.hide, *(zone.label for zone in settings.zones)):
        name = settings.cover_of(label)
        if name not in built:
            built[name] = fitted(build_cover(replace(settings, cover=name, cover_options={})), policy)
        if built[name] is not cover:
            result[label] = built[name]
    return result


def build_cover(settings: Settings) -> Cover:
    """Build the cover.

    Raises:
        UnknownName: no cover of that name.
        InvalidRequest: an option that the cover does not have, or a value outside its range.
    """
    plugin = CATALOGUE.load(settings.cover)
    known = inspect.signature(plugin.module.build).parameters
    for option in settings.cover_options:
        if option not in known:
            raise UnknownName(f"option of the cover {settings.cover!r}", option, known)
    cover: Cover = plugin.build(**settings.cover_options)
    if cover.secure != is_secure(settings.cover):
        raise InvalidRequest(
            f"the cover {settings.cover!r} says of itself both that it is secure and that it is cosmetic; "
            "its author must settle that"
        )
    return cover


def _jobs(
    settings: Settings,
    cover: Cover,
    kinds: tuple[Kind, ...],
    factory: FinderFactory,
    workers: int,
    policy: Policy | None,
) -> tuple[dict[Kind, Job], dict[Kind, Recipe]]:
    """Build one job per kind of file, and say how; kinds whose detectors are used alike share a finder.

    Args:
        policy: where one holds, `size` may not show the detectors less than their default.
    """
    built: dict[tuple[Choose | None, int], tuple[Recipe, Settings, Finder]] = {}
    jobs: dict[Kind, Job] = {}
    recipes: dict[Kind, Recipe] = {}
    for kind in KINDS:
        if kind not in kinds:
            continue
        usual: Choose = by_frame if kind == "video" else _by_picture
        choose = None if usual is _by_picture else usual
        if settings.size is not None:
            choose = at_least_default(settings.size, usual) if policy is not None else None
        # Pictures share the cores: measured, an eighth less work than sharing all threads. A video's decoder,
        # its encoder and other chunks use the rest: two threads took 9 % more work, and 6 % less time.
        most = cores() // max(workers, 1) if kind == "image" else VIDEO_THREADS
        threads = settings.threads or max(most, 1)
        key = (choose, threads)
        if key not in built:
            recipe = Recipe(replace(settings, threads=threads), factory, choose)
            finder = recipe.build()
            built[key] = (recipe, _spelled_out(recipe.settings, finder), finder)
        recipes[kind], own, finder = built[key]
        jobs[kind] = Job(own, finder, cover, build_covers(own, cover, policy))
    return jobs, recipes


def _by_picture(width: int, height: int) -> int | None:
    """Leave the size to the detectors, which go by the picture."""
    return None


def _size_in_words(kind: Kind, settings: Settings, policy: Policy | None) -> int | str:
    """Return how large the detectors' input is, for a receipt and for the digest of a run."""
    usual = f"by the frame, up to {LARGEST}" if kind == "video" else "by the picture"
    if settings.size is None:
        return usual
    return settings.size if policy is None else f"{settings.size} or {usual}, whichever is more"


def _spelled_out(settings: Settings, finder: Finder) -> Settings:
    """Return settings with every class by its own name, with its threshold and margin."""
    known = {*finder.hide, *known_classes(), *ALIASES, "*"}
    for word, value in settings.margins.items():
        if word not in known:
            raise unknown_class(word, finder.hide, hint=f"It was given the margin {value:g}.")
    zones = {zone.label for zone in settings.zones}
    for word, name in settings.covers.items():
        if word not in known | zones:
            raise unknown_class(word, finder.hide, hint=f"It was given the cover {name}.")
    covers = {word: name for word, name in settings.covers.items() if word in zones or word == "*"}
    for label in finder.hide:
        named = [settings.covers[word] for word in settings.covers if word == label or label in expand(word)]
        if named:
            covers[label] = settings.covers.get(label, named[0])
    return replace(
        settings,
        hide=finder.hide,
        covers=covers,
        thresholds={label: finder.threshold(label) for label in finder.hide},
        margins={label: settings.margin(label) for label in finder.hide},
    )


def _statement(job: Job) -> str:
    settings = job.settings
    start = f"Every region in which a detector found one of these: {', '.join(settings.hide)}"
    start = start if settings.hide else "No detector looked"
    if hidden := [zone.name for zone in settings.zones if zone.name not in settings.keep]:
        start += f"; and every one of these zones: {', '.join(hidden)}"
    names = ", ".join(repr(name) for name in dict.fromkeys(one.name for one in job.all_covers))
    many = "covers" if len(job.all_covers) > 1 else "cover"
    kept = f" Kept visible, as asked: {'; '.join(settings.keep)}." if settings.keep else ""
    if noisy_cover(job) is not None:
        return f"{start}, was hidden by {names}.{kept}"
    if all(one.secure for one in job.all_covers):
        verb = "are" if many == "covers" else "is"
        return (
            f"{start}, was hidden under the {many} {names}; the {many} {verb} secure: nothing of the "
            f"inside is left to undo.{kept}"
        )
    return f"{start}, was changed by {names}; that is cosmetic: {COSMETIC}.{kept}"


def _limits(jobs: Mapping[Kind, Job]) -> tuple[str, ...]:
    job = next(iter(jobs.values()))
    cosmetic = [one.name for one in job.all_covers if not one.secure and not isinstance(one, DpPixelate)]
    limits = [
        "A filter, not a proof: what the detectors miss stays visible. Look at the outputs.",
        "People may be known by body, clothes, gait, place or company under a perfect cover as well.",
        "Only the classes listed are hidden; other identifying things (names, plates, screens) are not.",
    ]
    if "plate" in job.settings.hide:
        limits.append(
            "Plates are text found on vehicles, measured on six plates only; where YOLO26 has no weights "
            "all text is taken for plates."
        )
    if cosmetic:
        advice = "Use a secure cover to protect people."
        limits.insert(0, f"The cover {cosmetic[0]!r} is cosmetic: {COSMETIC}. {advice}")
    if "video" in jobs:
        settings = jobs["video"].settings
        limits.append(_video_size_limit(settings))
        if settings.every > 1:
            limits.append(
                f"In video the detectors look at every {settings.every}th frame at least and at cuts, in "
                "full once a second and else at smaller copies where they can; between looks regions are "
                "interpolated."
            )
        if settings.audio == "copy":
            limits.append("Sound was kept (coded anew): voices and spoken names identify people.")
        if settings.subtitles == "copy":
            limits.append("Subtitles were kept: they say names and what is spoken.")
    return tuple(limits)


def _video_size_limit(settings: Settings) -> str:
    if settings.size is not None:
        return (
            f"In video the detectors were shown {settings.size} pixels on the long side: smaller misses more."
        )
    return (
        f"In video the detectors were shown frames of up to {LARGEST} pixels on the long side, and larger "
        "ones shrunk to that: faces below about 14 pixels there are missed."
    )
