"""Holding a request to the detectors' own defaults: what a policy leaves unsaid allows nothing weaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sfumato.core.policy import FILE_NAME, Policy
from sfumato.redaction.request import Request, strictest
from sfumato.redaction.settings import MARGINS, Settings
from sfumato.vision.choice import expand
from sfumato.vision.finder import Finder

#: Builds the finder for some settings; tests pass their own.
FinderFactory = Callable[[Settings], Finder]


def held(settings: Settings, policy: Policy, factory: FinderFactory, notes: list[str]) -> Settings:
    """Return settings that find no less than the defaults wherever the policy says nothing.

    Guarantee:
        No class has a threshold above the detector's own unless the policy gives it one, and every detector
        that would be used without the request is used.

    Args:
        settings: the request, joined with the policy.
        policy: the project's.
        factory: builds a finder.
        notes: gets a sentence for every change.
    """
    if settings.size is not None:
        notes.append(
            f"size {settings.size} is used only where it is no less than the default: a policy holds"
        )
    if settings.detectors:
        usual = factory(replace(settings, detectors=())).weights
        if more := [name for name in usual if name not in settings.detectors]:
            notes.append(
                f"the detectors used without the request stay as well: {', '.join(more)} (a policy holds)"
            )
            settings = replace(settings, detectors=(*settings.detectors, *more))
    ruled = policy.redact.thresholds
    if all(strictest(ruled, word) is not None for word in settings.thresholds):
        return settings
    finder = factory(settings)
    capped = dict(settings.thresholds)
    for label in finder.hide:
        asked, default = finder.threshold(label), finder.default(label)
        if asked > default and strictest(ruled, label) is None:
            capped[label] = default
            notes.append(
                f"the threshold of {label} is {default:g}, the detector's own, not {asked:g}: the policy "
                f"allows no higher (redact.thresholds in {FILE_NAME})"
            )
    return replace(settings, thresholds=capped)


def unused(wishes: Request, finder: Finder) -> list[str]:
    """Return a note for every threshold or margin asked for a class that is not hidden."""
    notes = []
    for what, table in (("threshold", wishes.thresholds), ("margin", wishes.margins)):
        for word, value in table.items():
            usual = what == "margin" and MARGINS.get(word) == value
            if word != "*" and not usual and not {word, *expand(word)} & set(finder.hide):
                notes.append(f"the {what} of {word} has no effect: {word} is not hidden")
    return notes
