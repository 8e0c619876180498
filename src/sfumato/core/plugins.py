"""The plugin catalogue: a name leads to one file.

A plugin is a plain module with four things:

    SUMMARY = "one line for people"
    NEEDS = ("cv2",)          # import names that `build` will import
    EXTRA = ""                # the extra of ours that brings them ("" for the base install)
    def build(**settings): ...

Heavy imports go inside `build`, so that listing the catalogue stays cheap. Third parties add a plugin
through an entry point in the catalogue's group, pointing at such a module.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from sfumato.core.errors import InvalidRequest, MissingExtra, UnknownName


@dataclass(frozen=True)
class Plugin:
    """One entry of a catalogue: its name and its module."""

    kind: str
    name: str
    module: ModuleType

    @property
    def summary(self) -> str:
        """One line for people."""
        return str(self.module.SUMMARY)

    @property
    def extra(self) -> str:
        """The extra that brings what this plugin needs; empty for the base install."""
        return str(self.module.EXTRA)

    @property
    def missing(self) -> tuple[str, ...]:
        """Import names in NEEDS that are not installed."""
        return tuple(name for name in self.module.NEEDS if importlib.util.find_spec(name) is None)

    def build(self, **settings: Any) -> Any:
        """Build the plugin's object.

        Raises:
            MissingExtra: a package in NEEDS is not installed.
        """
        if missing := self.missing:
            raise MissingExtra(f"the {self.kind} {self.name!r}", missing, self.extra)
        return self.module.build(**settings)


class Catalogue:
    """All plugins of one kind: the modules of a package, and entry points of third parties.

    Args:
        kind: the word used in messages, such as "detector".
        package: import path of the package whose modules are plugins (names with "_" are left out).
        group: entry-point group for third parties.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self.package, self.group = kind, package, group

    @cached_property
    def _targets(self) -> dict[str, str]:
        package = importlib.import_module(self.package)
        own = {
            info.name.replace("_", "-"): f"{self.package}.{info.name}"
            for info in pkgutil.iter_modules(package.__path__)
            if not info.name.startswith("_")
        }
        foreign = {point.name: point.value for point in entry_points(group=self.group)}
        return foreign | own  # ours win: a third party cannot silently replace a built-in

    @property
    def names(self) -> tuple[str, ...]:
        """Every name in the catalogue, sorted; nothing is imported for this."""
        return tuple(sorted(self._targets))

    def load(self, name: str) -> Plugin:
        """Import one plugin's module (light by contract) and return it.

        Raises:
            UnknownName: no plugin of that name; the nearest one is suggested.
        """
        if name not in self._targets:
            raise UnknownName(self.kind, name, self.names)
        module = importlib.import_module(self._targets[name])
        for attribute in ("SUMMARY", "NEEDS", "EXTRA", "build"):
            if not hasattr(module, attribute):
                raise InvalidRequest(f"the {self.kind} {name!r} ({module.__name__}) has no {attribute}")
        return Plugin(self.kind, name, module)

    def build(self, name: str, **settings: Any) -> Any:
        """Load one plugin and build its object."""
        return self.load(name).build(**settings)


def need(what: str, packages: tuple[str, ...], extra: str) -> None:
    """Say which extra to install where a room's packages are missing; nothing is imported.

    Raises:
        MissingExtra: at least one of them is not installed.
    """
    if missing := tuple(name for name in packages if importlib.util.find_spec(name) is None):
        raise MissingExtra(what, missing, extra)
