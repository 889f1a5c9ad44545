"""What runs on this machine, read without stumbling over a process that ends meanwhile."""

from __future__ import annotations

import psutil


def words_of(process: psutil.Process) -> list[str]:
    """Return the command line of `process`; none of one that has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie too
        return []
