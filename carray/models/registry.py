"""Which backbones timm knows, and the pretrained configuration of each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import timm

import carray.models.scratch  # noqa: F401  (timm knows our own nets from then on)
from carray.errors import ConfigError, did_you_mean


@lru_cache(maxsize=1)
def known_backbones() -> frozenset[str]:
    """Return every name that timm can build, without tags."""
    return frozenset(timm.list_models())


def check_name(name: str) -> None:
    """Refuse a name or a tag that timm doesn't know.

    Raises:
        ConfigError: the name or its tag is unknown; the nearest ones are named.
    """
    architecture, _, tag = name.partition(".")
    if architecture not in known_backbones():
        renamed = timm.models.get_deprecated_models().get(architecture)
        near = did_you_mean(architecture, known_backbones(), most=3)
        raise ConfigError(
            f"unknown backbone {name!r}{f'; timm calls it {renamed!r} now' if renamed else near}; "
            "any name of timm.list_models() will do"
        )
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise ConfigError(
            f"backbone {architecture!r} has no weights tagged {tag!r}{did_you_mean(name, tagged)}; "
            f"it has {', '.join(tagged) or 'none'}"
        )


@lru_cache(maxsize=256)
def source_config(name: str) -> dict[str, Any]:
    """Return timm's pretrained configuration of `name`; the default tag's where none is given.

    Raises:
        ConfigError: the name or its tag is unknown.
    """
    check_name(name)
    found = timm.get_pretrained_cfg(name)
    return found.to_dict() if found is not None else {}


def full_name(name: str) -> str:
    """Return `name` with its tag: `resnet18` is `resnet18.a1_in1k`."""
    architecture = name.partition(".")[0]
    tag = source_config(name).get("tag") or ""
    return f"{architecture}.{tag}" if tag else architecture
