"""Pictures to train on, each with the person or image whose privacy is counted.

From a folder with one folder per class, a version of the project's catalogue, or arrays. Pictures become
squares of bytes; models get them as floats in -1..1, by constants and never by the data's own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sfumato.core.errors import BatchFailed, InvalidRequest, MediaError, UnknownName
from sfumato.data.unit import UnitRule, refuse_without
from sfumato.training.decoding import decode

if TYPE_CHECKING:
    from sfumato.data.use import Use

#: Decoded pictures stay in memory up to so many bytes; beyond, each is decoded again when it is needed.
MEMORY = 2**31
NAMED = 5
Fetch = Callable[[], Path | bytes]


@dataclass(frozen=True, slots=True)
class Form:
    """What pictures are made into.

    Args:
        side: pixels of the square's sides.
        channels: 1 (grey) or 3 (RGB).
        skip_bad: leave pictures out that do not read, instead of refusing all.
        memory: most bytes of decoded pictures that are kept.
    """

    side: int = 32
    channels: int = 3
    skip_bad: bool = False
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if isinstance(self.side, bool) or not isinstance(self.side, int) or not 1 <= self.side <= 4096:
            raise InvalidRequest(f"side must be a whole number of 1..4096 pixels, got {self.side!r}")
        if self.channels not in (1, 3):
            raise InvalidRequest(f"channels must be 1 (grey) or 3 (RGB), got {self.channels!r}")


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures, as `torch.utils.data.Dataset` has them: `len(data)`, `data[i]`.

    >>> data = from_arrays(np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 1, 0]))
    >>> len(data), data[1][0].shape, data[1][1]
    (4, torch.Size([1, 28, 28]), 1)

    Args:
        form: of every picture.
        labels: (images,) int64, places in `classes`.
        classes: names; how many there are is in the model, and so released.
        units: of each image, whose privacy is counted.
        said: whether the data say whose each image is; else every image is its own.
        left_out: (name, why) of what is no part of it.
        used: the use of a catalogue's version, whose plan the run must take.
    """

    form: Form
    labels: Tensor
    classes: tuple[str, ...]
    units: tuple[Hashable, ...]
    said: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    used: Use | None = None
    _decoded: Tensor | None = field(default=None, repr=False)
    _fetch: Sequence[Fetch] = field(default=(), repr=False)

    def __len__(self) -> int:
        """How many images there are; this number is private: never compute a setting from it."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image, (channels, side, side) float32 in -1..1, and its label."""
        return scaled(self.bytes_of([index])[0]), int(self.labels[index])

    def bytes_of(self, indices: Sequence[int] | Tensor | slice) -> Tensor:
        """Return images as (images, channels, side, side) uint8."""
        if isinstance(indices, slice):
            indices = range(len(self))[indices]
        if self._decoded is not None:
            return self._decoded[torch.as_tensor(indices, dtype=torch.long)]
        made = [self._decode(self._fetch[int(i)]()) for i in indices]
        shape = (0, self.form.channels, self.form.side, self.form.side)
        return torch.stack(made) if made else torch.zeros(shape, dtype=torch.uint8)

    def batch(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return images as float32 in -1..1, and labels."""
        return scaled(self.bytes_of(indices)), self.labels[torch.as_tensor(indices, dtype=torch.long)]

    @property
    def by_unit(self) -> bool:
        """Whether some unit has several images."""
        return len(set(self.units)) < len(self.units)

    def _decode(self, source: Path | bytes) -> Tensor:
        return torch.from_numpy(decode(source, side=self.form.side, channels=self.form.channels))


def scaled(pixels: Tensor) -> Tensor:
    """Bytes to float32 in -1..1: by constants, since a mean of the data would be a release of its own."""
    return pixels.float().div_(127.5).sub_(1)


def bright(pixels: Tensor) -> Tensor:
    """Bytes to float32 in 0..1, which scattering takes: black is where nothing is."""
    return pixels.float().div_(255)


def from_folder(
    folder: Path, form: Form | None = None, *, classes: Sequence[str] = (), unit: str = "file"
) -> Pictures:
    """Return the pictures of a folder that has one folder per class.

    Args:
        folder: hidden files, and links out of it, are left out and listed.
        form: of the pictures; default: 32 pixels, RGB.
        classes: the folders' names, in order; empty: all that are there. Name them where it is private which
            there are: their number is in the model.
        unit: "file": every picture is its own unit; or "name:REGEX", the first group of a pattern that the
            file's name begins with, such as a patient's number.

    Raises:
        InvalidRequest: no picture, one outside of a class, an unknown class, or a picture without a unit.
        BatchFailed: pictures do not read; lists them.
    """
    from sfumato.data.readers.image_folder import build

    form, source = form or Form(), build().open(folder)
    if unit == "folder":
        raise InvalidRequest('the folders are the classes: the unit is "file", or "name:REGEX"')
    rule, found, keys, homeless, alone = UnitRule(unit), [], [], [], []
    for picture in source.pictures():
        label = picture.fields.get("folder")
        key = rule.of(picture.path, picture.fields)
        if label is None:
            homeless.append(picture.path)
        elif key is None:
            alone.append(picture.path)
        else:
            found.append((picture.path, str(label), _file(picture.file)))
            keys.append(key)
    if homeless:
        raise InvalidRequest(
            f"{len(homeless)} pictures of {folder} are in no class: {_some(homeless)}. Put each into a "
            "folder with its class's name"
        )
    refuse_without(len(alone), len(alone) + len(found), alone, unit, "pictures")
    named = tuple(classes) or tuple(sorted({label for _, label, _ in found}))
    return replace(_made(form, found, keys, named, source.left_out), said=unit != "file")


def from_use(used: Use, label: str, form: Form | None = None, *, classes: Sequence[str] = ()) -> Pictures:
    """Return the pictures of a version of the catalogue; each person of it is a unit.

    Args:
        used: of `sfumato.data.use.use(project, "NAME", purpose, "train")`.
        label: the field that says the class, which the policy keeps.
        form, classes: as for `from_folder`.

    Raises:
        InvalidRequest: the version holds no pictures, or some lack the field.
        BatchFailed: pictures do not read; lists them.
    """
    from sfumato.data.contents import gone, pictures

    form, found, keys, without = form or Form(), [], [], []
    missing = gone(used.store, used.version)
    for stored in pictures(used.store, used.version):
        value = stored.record.get("fields", {}).get(label)
        if value is None or not stored.item.subject:
            without.append(stored.item.path)
            continue
        found.append((stored.item.path, str(value), _stored(used, stored.item)))
        keys.append(stored.item.subject)
    if without or not found:
        have = f"{len(without)} pictures of {used.version.spec} have no field {label!r}"
        raise InvalidRequest(
            f"{have if without else f'{used.version.spec} holds no pictures'}. A field is kept where the "
            f'policy says so: [datasets.{used.version.dataset}] keep = ["{label}"]'
        )
    named = tuple(classes) or tuple(sorted({value for _, value, _ in found}))
    left_out = [("(a person's pictures)", "the person was erased")] * missing
    return replace(_made(form, found, keys, named, left_out), said=True, used=used)


def from_arrays(
    pictures: Any,
    labels: Any,
    *,
    classes: Sequence[str] = (),
    units: Iterable[Hashable] = (),
) -> Pictures:
    """Return pictures that are arrays already.

    Args:
        pictures: uint8, (images, side, side), (images, side, side, channels) or (images, channels, side,
            side).
        labels: (images,) whole numbers from 0.
        classes: names; empty: as many as the largest label says.
        units: of each image, whose it is; empty: every image is its own.

    Raises:
        InvalidRequest: other shapes, types or numbers of them.
    """
    pixels = _pixels(np.asarray(pictures))
    wanted = np.asarray(labels)
    if wanted.shape != (len(pixels),) or wanted.dtype.kind not in "iu":
        raise InvalidRequest(
            f"labels must be ({len(pixels)},) whole numbers, got {wanted.shape} of {wanted.dtype}"
        )
    most = int(wanted.max()) if len(wanted) else -1
    named = tuple(classes) or tuple(str(number) for number in range(most + 1))
    if len(wanted) and (int(wanted.min()) < 0 or most >= len(named)):
        raise InvalidRequest(
            f"labels lie in {int(wanted.min())}..{most}, and there are {len(named)} classes, from 0"
        )
    given = tuple(units)
    keys = given or tuple(range(len(pixels)))
    if len(keys) != len(pixels):
        raise InvalidRequest(f"there are {len(keys)} units for {len(pixels)} pictures: give one for each")
    form = Form(side=pixels.shape[2], channels=pixels.shape[1])
    return Pictures(
        form,
        torch.from_numpy(wanted.astype(np.int64)),
        named,
        keys,
        said=bool(given),
        _decoded=torch.from_numpy(pixels),
    )


def from_npz(path: Path, part: str = "train", *, classes: Sequence[str] = ()) -> Pictures:
    """Return the pictures of an npz file with the arrays `x_PART` and `y_PART`, and perhaps `unit_PART`.

    Raises:
        InvalidRequest: it does not read, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = tuple(file)
            arrays: Mapping[str, Any] = {
                name: file[f"{name}_{part}"] for name in ("x", "y", "unit") if f"{name}_{part}" in names
            }
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} does not read as npz: {error}") from error
    for name in ("x", "y"):
        if name not in arrays:
            raise UnknownName(f"array of {path.name}", f"{name}_{part}", names)
    units = arrays["unit"].tolist() if "unit" in arrays else ()
    return from_arrays(arrays["x"], arrays["y"], classes=classes, units=units)


def _pixels(given: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return pictures as (images, channels, side, side)."""
    if given.dtype == np.uint8 and given.ndim == 3:
        given = given[:, None]
    elif given.dtype == np.uint8 and given.ndim == 4 and given.shape[3] in (1, 3) and given.shape[1] > 3:
        given = given.transpose(0, 3, 1, 2)
    if given.dtype != np.uint8 or given.ndim != 4 or given.shape[2] != given.shape[3]:
        raise InvalidRequest(
            "pictures must be uint8 squares, (images, side, side) or with channels; got "
            f"{given.shape} of {given.dtype}"
        )
    return np.ascontiguousarray(given)


def _made(
    form: Form,
    found: Sequence[tuple[str, str, Fetch]],
    keys: Sequence[Hashable],
    classes: tuple[str, ...],
    left_out: Sequence[tuple[str, str]],
) -> Pictures:
    """Decode everything once, so that what is wrong is said before anything is charged."""
    places = {name: place for place, name in enumerate(classes)}
    strange = sorted({label for _, label, _ in found} - set(places))
    if strange:
        raise UnknownName("class", strange[0], classes, hint="Name every class, or leave its pictures out.")
    keep = len(found) * form.channels * form.side**2 <= form.memory
    good, decoded, bad = [], [], []
    for index, (name, _, fetch) in enumerate(found):
        try:
            pixels = decode(fetch(), side=form.side, channels=form.channels, name=name)
        except MediaError as error:
            bad.append((name, str(error)))
            continue
        good.append(index)
        if keep:
            decoded.append(torch.from_numpy(pixels))
    if bad and not form.skip_bad:
        raise BatchFailed(
            f"{len(bad)} of {len(found)} pictures do not read: {_some([why for _, why in bad])}. Nothing was "
            "charged. Mend or remove them, or leave them out: skip_bad = true",
            bad,
        )
    if not good:
        raise InvalidRequest("there is no picture left to train on")
    return Pictures(
        form,
        torch.tensor([places[found[i][1]] for i in good]),
        classes,
        tuple(keys[i] for i in good),
        left_out=(*left_out, *bad),
        _decoded=torch.stack(decoded) if keep else None,
        _fetch=[found[i][2] for i in good],
    )


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _file(path: Path) -> Fetch:
    return lambda: path


def _stored(used: Use, item: Any) -> Fetch:
    return lambda: used.store.get(item.name, item.home)
