"""glibc malloc settings: memory freed by a step is reused, memory freed by a trial is returned.

Imports no torch.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names of glibc's mallopt
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep what is freed, where the C library can (glibc); `malloc_trim` still gives it back.

    By default it returns each large block to the system when it is freed. A training step on a
    CPU frees its activations every time, and then spends a quarter of its time on getting them
    again, page by page, zeroed by the system.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return
    for option, value in ((_TRIM_THRESHOLD, _NEVER), (_MMAP_THRESHOLD, _NEVER), (_ARENA_MAX, 1)):
        set_option(option, value)


def trim() -> None:
    """Give what is free back to the system, between what is used too, where it can (glibc)."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)
