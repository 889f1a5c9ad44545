"""Which backbones timm knows, and the pretrained configuration of each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import timm

import carray.models.scratch  # noqa: F401  (timm knows our own nets from then on)
from carray.errors import ConfigError, did_you_mean
from carray.models.hub import hub_source
from carray.models.names import HUB, OLD_HUB


@lru_cache(maxsize=1)
def known_backbones() -> frozenset[str]:
    """Return every name that timm can build, without tags."""
    return frozenset(timm.list_models())


def present_name(name: str) -> str:
    """Return what timm calls `name` now: by its own map of older names, which gives tags too.

    `hf-hub:timm/NAME` is NAME, which needs no hub to be known; other names are as they were.
    """
    known = name.removeprefix(f"{HUB}timm/")
    return timm.models.get_deprecated_models().get(known) or known


def old_names(name: str) -> list[str]:
    """Return what older versions of timm called `name`, a name with its tag."""
    return [old for old, now in timm.models.get_deprecated_models().items() if now == name]


def check_name(name: str) -> None:
    """Refuse a name or a tag that timm doesn't know; its older names and the hub's are known.

    Raises:
        ConfigError: the name or its tag is unknown; the nearest ones are named.
    """
    if name.startswith(OLD_HUB):
        raise ConfigError(f"backbone {name!r}: write {HUB}{name.removeprefix(OLD_HUB)}")
    if present_name(name).startswith(HUB):
        name, _ = hub_source(name)
    architecture, _, tag = present_name(name).partition(".")
    if architecture not in known_backbones():
        near = did_you_mean(architecture, known_backbones(), most=3)
        raise ConfigError(
            f"unknown backbone {name!r}{near}; any name of timm.list_models() will do"
        )
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and present_name(name) not in tagged:
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
    present = present_name(name)
    if present.startswith(HUB):
        return hub_source(present)[1]
    found = timm.get_pretrained_cfg(present)
    return found.to_dict() if found is not None else {}


def full_name(name: str) -> str:
    """Return `name` as timm calls it now, with its tag: `resnet18` is `resnet18.a1_in1k`."""
    present = present_name(name)
    if present.startswith(HUB):
        return present.rpartition("/")[2]
    architecture = present.partition(".")[0]
    tag = source_config(name).get("tag") or ""
    return f"{architecture}.{tag}" if tag else architecture
