"""Work ahead: what one thread makes, another takes, a few pieces later."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

#: Seconds after which a thread that nobody takes from looks whether it is to stop.
PATIENCE = 0.1


class _End:
    """What follows the last item: the error that ended them, or nothing."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[T], most: int = 4) -> Generator[T, None, None]:
    """Yield `items`, made in a thread of their own that runs ahead by at most `most` of them.

    >>> list(ahead(range(3)))
    [0, 1, 2]

    Guarantee:
        - The order and the items are those of `items`; an error in them is raised here.
        - The thread has ended when the iteration ends: by its end, by an error, or by being closed.

    Args:
        items: used in the other thread only, until the iteration ends.
        most: items that may wait.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(most)
    stop = threading.Event()

    def put(item: T | _End) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=PATIENCE)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        end = _End()
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:
            end = _End(error)
        put(end)

    thread = threading.Thread(target=work, name="sfumato-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()
