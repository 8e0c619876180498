"""Croissant 1.1: a dataset's description for machines, as JSON-LD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sfumato.data.version import Version

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"

#: The context that Croissant 1.1 asks every file to carry.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

#: Beginning of an Arrow type's name -> Croissant data type.
TYPES = {
    "int": "sc:Integer",
    "uint": "sc:Integer",
    "float": "sc:Float",
    "double": "sc:Float",
    "halffloat": "sc:Float",
    "decimal": "sc:Float",
    "bool": "sc:Boolean",
    "date": "sc:Date",
    "timestamp": "sc:DateTime",
}

MIME = {
    ".csv": "text/csv",
    ".parquet": "application/x-parquet",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".hif": "image/heif",
    ".avif": "image/avif",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """One exported file.

    Args:
        path: below the export.
        sha256, bytes: of its content.
        group: the folder of pictures or of records that it is one of; empty for a table.
    """

    path: str
    sha256: str
    bytes: int
    group: str = ""

    @property
    def mime(self) -> str:
        """Its media type."""
        return MIME.get(PurePosixPath(self.path).suffix.lower(), "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Counts:
    """What of a version was written: it lacks the pieces of people who were erased.

    Args:
        rows, items: how many; people: 0 where they were not counted.
    """

    rows: int
    items: int
    people: int


def describe(
    version: Version, files: Sequence[Exported], terms: Mapping[str, str], counts: Counts
) -> dict[str, Any]:
    """Return a version's Croissant description.

    Args:
        files: what the export holds; tables are listed by hash, pictures and records as sets of files.
        counts: how much that is.
        terms: more properties of the dataset, such as license, url or creator.

    Source: the Croissant format specification 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
    """
    tables = [file for file in files if not file.group]
    pictures = [file for file in files if file.group.endswith("pictures")]
    records = [file for file in files if file.group.endswith("records")]
    distribution = [_file(file) for file in tables]
    sets = [_table_fields(version, file) for file in tables]
    if pictures:
        distribution.append(_set("pictures", pictures))
        sets.append(_picture_fields())
    if records:
        distribution.append(_set("records", records))
    result: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": version.dataset,
        "description": _sentence(version, counts),
        "conformsTo": CONFORMS_TO,
        "version": f"{version.label}.0.0",
        "identifier": f"sha256:{version.hash}",
        "datePublished": version.created,
        "distribution": distribution,
        "recordSet": sets,
        "prov:wasDerivedFrom": [{"@id": f"sha256:{parent}"} for parent in version.parents],
        "rai:personalSensitiveInformation": _personal(version),
    }
    return result | dict(terms)


def _sentence(version: Version, counts: Counts) -> str:
    unit = version.facts.unit
    what = f"{counts.rows} rows" if version.facts.rows else f"{counts.items} items"
    people = f", of {counts.people} people" if counts.people else ""
    return f"Version {version.label} of {version.dataset}: {what}{people}, privacy unit {unit!r}."


def _personal(version: Version) -> str:
    facts = version.facts
    told = [f"{column} generalised by {rule!r}" for column, rule in facts.generalised]
    dropped = f"{len(facts.dropped)} fields dropped"
    return f"People are pseudonyms; this is personal data. {'; '.join([dropped, *told])}."


def _file(file: Exported) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": file.mime,
        "sha256": file.sha256,
    }


def _set(name: str, files: Sequence[Exported]) -> dict[str, Any]:
    mimes = sorted({file.mime for file in files})
    kinds = sorted({(file.group, PurePosixPath(file.path).suffix) for file in files})
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "encodingFormat": mimes[0] if len(mimes) == 1 else mimes,
        "includes": [f"{group}/{depth}*{suffix}" for group, suffix in kinds for depth in ("", "**/")],
    }


def _table_fields(version: Version, file: Exported) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"rows/{name}",
            "name": name,
            "dataType": _type(kind),
            "source": {"fileObject": {"@id": file.path}, "extract": {"column": name}},
        }
        for name, kind in version.facts.columns
    ]
    return {"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}


def _picture_fields() -> dict[str, Any]:
    source = {"fileSet": {"@id": "pictures"}}
    fields = [
        ("path", "sc:Text", "filename"),
        ("pixels", "sc:ImageObject", "content"),
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "picture",
        "name": "picture",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"picture/{name}",
                "name": name,
                "dataType": kind,
                "source": source | {"extract": {"fileProperty": part}},
            }
            for name, kind, part in fields
        ],
    }


def _type(kind: str) -> str:
    for prefix, name in TYPES.items():
        if kind.startswith(prefix):
            return name
    return "sc:Text"
