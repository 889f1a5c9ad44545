"""Where this machine keeps what it has fetched from URLs: `$CARRAY_CACHE`, or `~/.cache/carray`."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of everything that can be fetched again; absolute."""
    named = os.environ.get("CARRAY_CACHE")
    return Path(named or "~/.cache/carray").expanduser().absolute()


def folder_of(url: str, room: str) -> Path:
    """Return the folder of this machine that stands for a URL, in a room of the cache."""
    plain = url.partition("?")[0].rstrip("/")
    words = re.sub(r"[^A-Za-z0-9.]+", "-", plain.partition("://")[2]).strip("-.")
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return cache_folder() / room / f"{words[:60]}-{digest}"
