"""What travels to a worker, once: how finders are built, covers, models by their contents. No file's name."""

from __future__ import annotations

import importlib.metadata
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato._version import __version__
from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Cover
from sfumato.redaction.job import Job
from sfumato.redaction.settings import Settings
from sfumato.vision import models
from sfumato.vision.detectors import CATALOGUE, Weights

if TYPE_CHECKING:
    from sfumato.redaction.plan import Kind, Ready, Recipe
    from sfumato.redaction.tree import Item

#: Packages whose version can change a byte of an output.
PACKAGES = ("av", "numpy", "onnxruntime", "opencv-python", "pillow", "pillow-heif")
#: A pattern that no file's name matches.
NO_FILE = "/\0"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one kind of file needs.

    Args:
        recipe: how the finder is built.
        settings: with every class by its own name.
        cover, covers: see `Job`.
        weights: detector -> the model that must be in use.
    """

    recipe: Recipe
    settings: Settings
    cover: Cover
    covers: Mapping[str, Cover]
    weights: Mapping[str, Weights]


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """All that a worker is built from.

    Args:
        software: package -> version that outputs depend on.
        parts: kind of file -> what it needs.
        given: detector -> contents of the weights that were given for it, and the file's suffix.
        cached: file in the model cache -> its contents.
    """

    software: Mapping[str, str]
    parts: Mapping[Kind, Part]
    given: Mapping[str, tuple[bytes, str]]
    cached: Mapping[str, bytes]


def pack(ready: Ready, dumps: Callable[[Any], bytes]) -> bytes:
    """Return a parcel of what is ready, pickled.

    Args:
        ready: what to do.
        dumps: pickles; functions that no worker could import must travel, too.

    Raises:
        InvalidRequest: something of it cannot travel.
    """
    for job in ready.jobs.values():
        for cover in job.all_covers:
            if hasattr(cover, "charged"):  # it draws noise, and only through the permit, which stays here
                raise InvalidRequest(
                    f"the cover {cover.name!r} draws charged noise, which happens where the ledger is and "
                    "not on the workers of a cluster: use --engine local, or another cover"
                )
    parts = {
        kind: Part(ready.recipes[kind], job.settings, job.cover, job.covers, job.finder.weights)
        for kind, job in ready.jobs.items()
    }
    paths = next(iter(parts.values())).settings.models
    given = {name: (Path(path).read_bytes(), Path(path).suffix) for name, path in paths.items()}
    used = {name for part in parts.values() for name in part.weights}
    parcel = Parcel(software(), parts, given, _cached(used, given))
    try:
        return dumps(parcel)
    except Exception as error:  # pickling runs the code of plugins
        raise InvalidRequest(
            f"what was asked for cannot be sent to the workers of a cluster ({error}): a cover or detector "
            "of a third party must be picklable. Use --engine local, or another one"
        ) from error


def software() -> dict[str, str]:
    """Return the versions, here, of all that outputs depend on."""
    found = {"sfumato": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _cached(used: set[str], given: Mapping[str, object]) -> dict[str, bytes]:
    """Return the files of the model cache that are in use, by name; packages are installed everywhere."""
    names = set(used)
    for name in used:
        names |= {*getattr(CATALOGUE.load(name).module, "USES", ())} if name in CATALOGUE.names else set()
    found = {}
    for name in names - set(given):
        for one in models.REGISTRY:
            if one.detector == name and not one.package and models.place(one).exists():
                found[one.file] = models.path(one.name).read_bytes()
                break
    return found


def unpack(data: bytes, folder: Path) -> Parcel:
    """Return a parcel with its models laid down in a folder; `folder / "cache"` is to be the model cache.

    Raises:
        InvalidRequest: this worker's software is not that of the run.
    """
    parcel: Parcel = pickle.loads(data)
    here = software()
    if other := {name: there for name, there in parcel.software.items() if here.get(name) != there}:
        told = "; ".join(f"{name} {here.get(name)}, and the run has {there}" for name, there in other.items())
        raise InvalidRequest(
            f"a worker has other software, so that its outputs could differ: {told}. Install the same on "
            "every machine of the cluster"
        )
    cache = folder / "cache"
    for name, content in parcel.cached.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(content)
    paths = {}
    for name, (content, suffix) in parcel.given.items():
        paths[name] = folder / f"{name}{suffix}"
        paths[name].write_bytes(content)
    recipes: dict[int, Recipe] = {}  # kinds that share one go on sharing it, and its finder
    parts = {}
    for kind, part in parcel.parts.items():
        old = part.recipe
        recipes.setdefault(id(old), replace(old, settings=replace(old.settings, models=paths)))
        parts[kind] = replace(part, recipe=recipes[id(old)])
    return replace(parcel, parts=parts)


def build(parcel: Parcel) -> dict[Kind, Job]:
    """Build the job of each kind of file.

    Raises:
        InvalidRequest: a detector or a model is not the one of the run.
    """
    finders = {id(part.recipe): part.recipe.build() for part in parcel.parts.values()}
    jobs: dict[Kind, Job] = {}
    for kind, part in parcel.parts.items():
        finder = finders[id(part.recipe)]
        if dict(finder.weights) != dict(part.weights):
            raise InvalidRequest(
                f"a worker has other models: {_said(finder.weights)}; the run has {_said(part.weights)}. "
                "Install the same on every machine of the cluster"
            )
        jobs[kind] = Job(part.settings, finder, part.cover, part.covers)
    return jobs


def _said(weights: Mapping[str, Weights]) -> str:
    return ", ".join(f"{one.name} {one.sha256[:12]}" for one in weights.values()) or "none"


def zones_for(item: Item, settings: Settings) -> tuple[str, ...] | None:
    """Return the names of the zones that are meant for a file; None: all are for every file."""
    if all(zone.files == "*" for zone in settings.zones):
        return None
    return tuple(zone.name for zone in settings.zones if zone.is_for(item.source))


def with_zones(job: Job, names: tuple[str, ...] | None) -> Job:
    """Return the job for a file that these zones are meant for, under whatever name it has arrived."""
    if names is None:
        return job
    zones = [replace(zone, files="*" if zone.name in names else NO_FILE) for zone in job.settings.zones]
    return replace(job, settings=replace(job.settings, zones=tuple(zones)))
