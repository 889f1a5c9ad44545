"""A lane's own memory from trial to trial: watched and bounded. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from carray.errors import counted
from carray.typing import GIB

LEVEL_TRIAL = 3  # libraries have loaded and their caches have filled when this trial has ended


@dataclass(frozen=True)
class MemoryLimit:
    """How far a lane's own memory may grow over what it was after its third trial.

    Trials of all kinds leave a rank within a third of that level (measured over 100 trials, nets
    of 0.1 to 6 M parameters); a leak of tensors passes both bounds, and then takes the node.
    """

    gib: float = 1.0
    share: float = 0.5
    """Of the level."""


class LaneMemory:
    """Looks at a rank's own memory after each trial; mapped files are shared and left out."""

    def __init__(self, allowed: MemoryLimit) -> None:
        self._allowed = allowed
        self._trials = 0
        self._level_bytes = 0

    def exceeds_limit(self) -> bool:
        """Note the end of a trial; say whether memory has passed the bounds."""
        self._trials += 1
        own = own_bytes()
        if self._trials <= LEVEL_TRIAL:
            self._level_bytes = own
            return False
        level, allowed = self._level_bytes, self._allowed
        return own > level + max(allowed.gib * GIB, allowed.share * level)  # past both bounds

    def __str__(self) -> str:
        now = own_bytes() / GIB
        return f"{self._level_bytes / GIB:.2f} to {now:.2f} GiB in {counted(self._trials, 'trial')}"


def own_bytes() -> int:
    """Return the memory that this process alone holds."""
    held = psutil.Process().memory_info()
    return int(held.rss - getattr(held, "shared", 0))
