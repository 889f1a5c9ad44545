"""How often one client may ask: a bucket of requests that fills again with time."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from carray.errors import counted
from carray.serving.limits import Refused

MOST_CLIENTS = 10_000  # that are remembered; the one that asked longest ago is forgotten
MINUTE = 60.0  # seconds


class Rate:
    """Refuses a client's requests beyond `per_minute`, which it may send at once or spread."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> left, when

    def take(self, client: str) -> None:
        """Count a request.

        Raises:
            Refused: 429 where the client has none left, with when it has one again.
        """
        if not self._per_minute:
            return
        now = self._clock()
        left, at = self._left.pop(client, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - at) * self._per_minute / MINUTE)
        is_allowed = left >= 1
        self._left[client] = left - is_allowed, now
        if len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        if not is_allowed:
            seconds = math.ceil((1 - left) * MINUTE / self._per_minute)
            raise Refused(
                429, f"more than {counted(self._per_minute, 'request')} in a minute: wait", seconds
            )
