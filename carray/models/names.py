"""Names of backbones, looked up in sources: a misspelt one is found without importing timm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

_REGISTERED = re.compile(rb"@register_model.*\ndef (\w+)\(")


def refuse_unknown(names: Iterable[str]) -> None:
    """Refuse a backbone or a tag that timm doesn't know.

    timm itself is asked, which takes seconds, only about what its sources don't show: a misspelt
    name, and some 50 tags of 1,800 that it puts together when it is imported.

    Raises:
        ConfigError: the name or its tag is unknown; the nearest ones are named.
    """
    sources = _sources()
    known = {name.decode() for name in _REGISTERED.findall(sources)}
    for name in names:
        architecture, _, tag = name.partition(".")
        is_tag_shown = not tag or any(f"{q}{name}{q}".encode() in sources for q in "'\"")
        if architecture not in known or not is_tag_shown:
            from carray.models.registry import check_name

            check_name(name)


def _sources() -> bytes:
    """Return the text of every module that registers backbones with timm."""
    spec = find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder, "models").glob("*.py")]
    return b"".join(file.read_bytes() for file in (*files, Path(__file__).with_name("scratch.py")))
