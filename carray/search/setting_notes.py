"""What a study says of its settings before it starts: those without effect, transforms, boxes."""

from __future__ import annotations

from typing import Any

from carray.config import AugmentConfig
from carray.data.manifest import Manifest
from carray.models.unread import unread
from carray.search.space.space import SearchSpace


def own_transforms(space: SearchSpace) -> list[str]:
    """Return the names of the user's own transforms that a trial may have."""
    return [name for name in _values(space, "augment.transform") if name]


def idle_settings(space: SearchSpace) -> list[str]:
    """Say which settings of a space change nothing, whatever is drawn."""
    return unread(({*block.fixed, *block.search}, block.values_of) for _, block in space.branches())


def setting_notes(space: SearchSpace, manifest: Manifest, side: int) -> list[str]:
    """Say which settings change nothing, what transforms cost, and which boxes lack.

    Every transform is tried on images of `side` pixels.

    Raises:
        ConfigError: a transform can't be imported, or fails.
    """
    from carray.data.pixels.known_boxes import boxes_note
    from carray.data.pixels.own_transform import transform_note

    transforms = (AugmentConfig(transform=name) for name in own_transforms(space))
    notes = [transform_note(augment, side) for augment in transforms]
    keeps = any(_values(space, "augment.crop_keeps_box"))
    return [
        *idle_settings(space),
        *notes,
        *filter(None, [boxes_note(AugmentConfig(crop_keeps_box=keeps), manifest)]),
    ]


def _values(space: SearchSpace, name: str) -> list[Any]:
    values = (value for _, block in space.branches() for value in block.values_of(name))
    return list(dict.fromkeys(values))
