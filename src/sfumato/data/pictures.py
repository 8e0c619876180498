"""Pictures on their way in: whose they are, what they are called, what is written about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sfumato.core.dataset_policy import DatasetSection
from sfumato.core.errors import MediaError
from sfumato.core.files import digest_of, sha256_of
from sfumato.data.generalise import generalised_fields
from sfumato.data.people import People
from sfumato.data.readers import PICTURES, Picture, PictureSource
from sfumato.data.unit import UnitRule, refuse_without

#: A picture file -> its pixels as a file of the same format without any metadata, and their width and height.
Strip = Callable[[Path], tuple[bytes, int, int]]

PIXELS, RECORDS = "pictures/", "records/"


@dataclass(frozen=True, slots=True)
class Entering:
    """One picture that may enter.

    Args:
        subject: pseudonym of the person.
        name: path inside the version, below pictures/.
        record: what is kept about it; empty where nothing is.
    """

    picture: Picture
    subject: str
    name: str
    record: dict[str, Any]

    def record_bytes(self) -> bytes:
        """Return the record as JSON.

        Raises:
            MediaError: a number in it is not finite.
        """
        try:
            return json.dumps(self.record, sort_keys=True, allow_nan=False).encode()
        except ValueError:
            raise MediaError("a number that is kept about it is not finite") from None


def entering(
    source: PictureSource,
    rules: DatasetSection,
    kept: tuple[str, ...],
    people: People,
    *,
    hide_paths: bool = False,
) -> list[Entering]:
    """Decide for every picture whose it is and what is kept about it; no pixel is read.

    Args:
        hide_paths: a path that is kept goes into the picture's record, which is encrypted, not into its name.

    Raises:
        InvalidRequest: pictures without a unit, or a value that a rule does not fit.
    """
    rule, result, without = UnitRule(rules.unit), [], list[str]()
    for picture in source.pictures():
        value = rule.of(picture.path, picture.fields)
        if value is None:
            without.append(picture.path)
            continue
        subject = people.subject(value, rules.population)
        suffix = PurePosixPath(picture.path).suffix.lower()
        suffix = suffix if suffix in PICTURES else ""  # scan.ann-example
        plain = "path" in kept and not hide_paths
        name = picture.path if plain else f"{subject}/{people.path(subject, picture.path)}{suffix}"
        result.append(Entering(picture, subject, name, _record(picture, rules, kept, hide_paths)))
    refuse_without(len(without), len(result) + len(without), without, rules.unit, "pictures")
    return result


def pixels_of(one: Entering, strip: Strip) -> bytes:
    """Return a picture's pixels and nothing else.

    Raises:
        MediaError: it cannot be read, or its annotations are for a picture of another size.
    """
    data, width, height = strip(one.picture.file)
    said = (one.picture.fields.get("width"), one.picture.fields.get("height"))
    if one.picture.annotations and None not in said and said != (width, height):
        raise MediaError(
            f"its annotations are for {said[0]}x{said[1]} pixels, and upright it has {width}x{height}"
        )
    return data


def digests(pictures: list[Entering]) -> tuple[str, str]:
    """Return a digest of the bytes of all pictures, whatever they are called, and one of all that enters."""
    hashes = [sha256_of(one.picture.file) for one in pictures]
    entering = [
        [one.name, digest, json.dumps(one.record, sort_keys=True)]
        for one, digest in zip(pictures, hashes, strict=True)
    ]
    return digest_of(sorted(hashes)), digest_of(sorted(entering, key=lambda part: str(part[0])))


def subjects_of(pictures: list[Entering]) -> int:
    """Return how many people they are about."""
    return len({one.subject for one in pictures})


def _record(
    picture: Picture, rules: DatasetSection, kept: tuple[str, ...], hide_paths: bool
) -> dict[str, Any]:
    fields = {name: value for name, value in picture.fields.items() if name in kept and name != "path"}
    if hide_paths and "path" in kept:
        fields["path"] = picture.path
    marks = [generalised_fields(mark, rules.generalise) for mark in _kept_marks(picture, kept)]
    record: dict[str, Any] = {}
    if fields:
        record["fields"] = generalised_fields(fields, rules.generalise)
    if any(marks):
        record["annotations"] = marks
    return record


def _kept_marks(picture: Picture, kept: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for mark in picture.annotations:
        yield {name: value for name, value in mark.items() if name in kept}
