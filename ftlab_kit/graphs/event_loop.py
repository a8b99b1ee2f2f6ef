"""The one thread in which everything asynchronous runs; to all others the graph is synchronous.

Graphiti and its drivers belong to one event loop, and a notebook's kernel has a loop of its own. So
ours runs beside it, as long as the process does.
"""

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="ftlab-graphs", daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work and return its result; an interrupt of the wait cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    finally:
        future.cancel()  # does nothing once it is done
