"""The table of operations that are recorded in a way of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Runs and records one operation; None: not like this, try the general way.
Handler = Callable[..., Any]

HANDLERS: dict[Callable[..., Any], Handler] = {}

#: Operations that are refused with some arguments, whether they meet a parameter or not.
WATCHED: dict[Callable[..., Any], Callable[..., None]] = {}

#: Operations without parameters that are run in a faster way; None: not like this.
FASTER: dict[Callable[..., Any], Handler] = {}


def handles(*functions: Callable[..., Any]) -> Callable[[Handler], Handler]:
    """Enter a handler, called with the tape and the operation's own arguments, for some operations."""

    def enter(handler: Handler) -> Handler:
        for function in functions:
            HANDLERS[function] = handler
        return handler

    return enter


def faster(*functions: Callable[..., Any]) -> Callable[[Handler], Handler]:
    """Enter a way to run some operations, called with the operation's own arguments."""

    def enter(handler: Handler) -> Handler:
        for function in functions:
            FASTER[function] = handler
        return handler

    return enter


__all__ = ["FASTER", "HANDLERS", "WATCHED", "Handler", "faster", "handles"]
