"""The one thread in which everything asynchronous runs; to all others the graph is synchronous.

Graphiti and its drivers belong to one event loop, and a notebook's kernel has a loop of its own: so
ours runs beside it, for as long as the process does.
"""

import asyncio
import functools
import sqlite3
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ftlab_kit.errors import InputError

T = TypeVar("T")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="ftlab-graphs", daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do some asynchronous work and return what it returns; what interrupts the wait stops it.

    Raises:
        InputError: The graph's file is damaged.
    """
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"The graph's file is damaged ({error}). Move it away, and load its documents again."
        ) from error
    finally:
        future.cancel()  # of one that is done this does nothing
