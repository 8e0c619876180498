"""What a caller asks for, joined with what the project's policy asks for: the stricter of the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.policy import FILE_NAME, Policy, Redact
from sfumato.redaction.chosen import chosen, covers, is_secure, keep
from sfumato.redaction.covers import CATALOGUE
from sfumato.redaction.settings import MARGINS, Audio, Settings, Subtitles, check_kinds
from sfumato.redaction.zones import Zone, zones_of
from sfumato.vision.choice import expand


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Wishes for one redaction; what is None comes from the policy, and without one from `Settings`.

    >>> resolve(Request(cover="solid")).settings.hide
    ('face',)

    Args:
        hide: class names or aliases.
        cover: name of a cover in the catalogue.
        only: hide these classes and zones and no others, where the policy allows that.
        others: as in `Settings`.
    """

    hide: tuple[str, ...] | None = None
    cover: str | None = None
    cover_options: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)
    detectors: tuple[str, ...] = ()
    size: int | None = None
    threads: int = 0
    every: int | None = None
    audio: Audio | None = None
    max_pixels: int | None = None
    covers: Mapping[str, str] = field(default_factory=dict)
    zones: tuple[Zone, ...] = ()
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    subtitles: Subtitles | None = None

    def __post_init__(self) -> None:
        check_kinds(self)
        object.__setattr__(self, "zones", zones_of(self.zones))
        if self.only is not None and self.hide is not None:
            raise InvalidRequest("hide and only say two things about one: give one of them")

    @classmethod
    def of(cls, settings: Settings) -> Request:
        """Return the request for exactly these settings; a policy may still make them stricter."""
        same = {name: getattr(settings, name) for name in Settings.__dataclass_fields__}
        if not settings.hide:
            return cls(**same | {"hide": None, "only": tuple(zone.name for zone in settings.zones)})
        return cls(**same)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings to use, and sentences that say where the policy went beyond the request."""

    settings: Settings
    notes: tuple[str, ...] = ()


def resolve(request: Request, policy: Policy | None = None, root: Path | None = None) -> Resolved:
    """Join a request with a policy.

    Guarantee:
        - Every class that the policy hides is hidden, with a threshold no higher and a margin no smaller.
        - A cosmetic cover is used only where the policy itself names a cosmetic cover, or there is none.
        - Sound and subtitles that the policy takes away are not kept; frames are looked at as often as it
          says.
        - What the policy does not mention counts as the default: leaving a key out allows nothing weaker.
          The defaults of detectors (their thresholds and sizes) are held to by `prepare`.
        - Weights that the policy names are not replaced.

    Args:
        request: what is asked for.
        policy: the project's; None: outside a project.
        root: folder that relative paths in the policy start from.

    Raises:
        UnknownName: a cover that is not in the catalogue.
        PolicyRefused: a cosmetic cover where the policy's is secure, or other weights than the policy's.
        InvalidRequest: a value outside its range.
    """
    rules = policy.redact if policy is not None else Redact()
    notes: list[str] = []
    ruled = rules.margins if policy is None else _with_defaults(rules.margins)
    margins = _joined("margin", request.margins, ruled, max, notes)
    if "*" not in margins:
        margins = {**MARGINS, **margins}
    models = {name: _beside(root, path) for name, path in rules.models.items()}
    _keep_pinned(request.models, models)
    limit = {} if request.max_pixels is None else {"max_pixels": request.max_pixels}
    hide, zones = chosen(request, policy, _hide(request, policy, notes))
    settings = Settings(
        hide=hide,
        cover=_cover(request, policy),
        cover_options=request.cover_options,
        thresholds=_joined("threshold", request.thresholds, rules.thresholds, min, notes),
        margins=margins,
        models={**models, **{name: Path(path) for name, path in request.models.items()}},
        detectors=tuple(request.detectors),
        size=request.size,
        threads=request.threads,
        every=_every(request, policy, notes),
        audio=_audio(request, rules, notes),
        subtitles=_subtitles(request, policy, notes),
        covers=covers(request, policy),
        zones=zones,
        keep=keep(request, policy),
        **limit,
    )
    return Resolved(settings, tuple(notes))


def strictest(
    table: Mapping[str, float], label: str, pick: Callable[..., float] | None = None
) -> float | None:
    """Return a class's entry: by its name, by an alias (the strictest by `pick`), or by "*"."""
    if label in table:
        return table[label]
    by_alias = [value for word, value in table.items() if label in expand(word)]
    if by_alias:
        return (pick or min)(by_alias)
    return table.get("*")


def _hide(request: Request, policy: Policy | None, notes: list[str]) -> tuple[str, ...]:
    demanded = (policy.redact if policy is not None else Redact()).hide
    asked = request.hide
    if asked is None:
        return demanded
    if policy is None:
        return tuple(dict.fromkeys(asked))
    covered = {label for word in asked for label in (word, *expand(word))}
    more = [word for word in demanded if not {*(expand(word) or (word,))} <= covered]
    if more:
        notes.append(f"the policy hides {', '.join(more)} as well (redact.hide in {FILE_NAME})")
    return tuple(dict.fromkeys((*asked, *demanded)))


def _cover(request: Request, policy: Policy | None) -> str:
    if policy is None:
        return request.cover or "fill"
    ruled = policy.redact.cover
    if request.cover is None or request.cover == ruled:
        return ruled
    if not is_secure(request.cover) and is_secure(ruled):
        raise PolicyRefused(
            f"the policy's cover is {ruled!r}, which is secure, and {request.cover!r} is cosmetic: what it "
            f"leaves can be recognised. The rule: redact.cover in {FILE_NAME}. Choose a secure cover: "
            f"{', '.join(name for name in CATALOGUE.names if is_secure(name))}."
        )
    return request.cover


def _joined(
    what: str,
    asked: Mapping[str, float],
    ruled: Mapping[str, float],
    pick: Callable[..., float],
    notes: list[str],
) -> dict[str, float]:
    """Join two tables; where both speak about a class, `pick` takes the stricter value."""
    named = [*asked, *ruled]
    words = dict.fromkeys(label for word in named for label in (word, *expand(word)))
    result: dict[str, float] = {}
    noted: set[str] = set()
    for word in words:
        ours, theirs = strictest(asked, word, pick), strictest(ruled, word, pick)
        values = [value for value in (ours, theirs) if value is not None]
        if not values:
            continue  # an alias whose classes have entries of their own
        result[word] = pick(values)
        if ours is not None and theirs is not None and result[word] != ours and word not in noted:
            noted |= {word, *expand(word)}
            if what == "margin" and word in MARGINS and word not in {"face", "*", *asked}:
                continue  # a default of a class that nobody spoke of
            notes.append(
                f"the {what} of {word} is {theirs:g} as the policy says, not {ours:g} "
                f"(redact.{what}s in {FILE_NAME})"
            )
    return result


def _with_defaults(ruled: Mapping[str, float]) -> dict[str, float]:
    """Return the policy's margins with the defaults of the classes that it says nothing about."""
    if "*" in ruled:
        return dict(ruled)
    return {**{word: value for word, value in MARGINS.items() if strictest(ruled, word) is None}, **ruled}


def _keep_pinned(asked: Mapping[str, Path], pinned: Mapping[str, Path]) -> None:
    """Refuse other weights for a detector whose weights the policy names."""
    for name, path in asked.items():
        if name in pinned and Path(path).expanduser().resolve() != pinned[name].resolve():
            raise PolicyRefused(
                f"the policy names the weights of {name}, and others would find other things. The rule: "
                f"redact.models.{name} in {FILE_NAME}. Leave out the model, or change the policy."
            )


def _every(request: Request, policy: Policy | None, notes: list[str]) -> int:
    rules = policy.redact if policy is not None else Redact()
    if request.every is None:
        return rules.every
    if policy is not None and request.every > rules.every:
        notes.append(
            f"every {rules.every} frames are looked at as the policy says, not every {request.every} "
            f"(redact.every in {FILE_NAME})"
        )
        return rules.every
    return request.every


def _audio(request: Request, rules: Redact, notes: list[str]) -> Audio:
    if request.audio is None:
        return rules.audio
    if request.audio == "copy" and rules.audio != "copy":
        notes.append(
            f"sound is not kept: audio is {rules.audio!r} in the policy (redact.audio in {FILE_NAME})"
        )
        return rules.audio
    return request.audio


def _subtitles(request: Request, policy: Policy | None, notes: list[str]) -> Subtitles:
    ruled = (policy.redact if policy is not None else Redact()).subtitles
    if request.subtitles is None:
        return ruled
    if policy is not None and request.subtitles == "copy" and ruled == "drop":
        notes.append(f"subtitles are not kept, as the policy says (redact.subtitles in {FILE_NAME})")
        return "drop"
    return request.subtitles


def _beside(root: Path | None, path: Path) -> Path:
    path = path.expanduser()
    return path if path.is_absolute() or root is None else root / path
