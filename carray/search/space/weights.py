"""The pretrained weights that trials begin with, and whether this machine can have them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from carray.config import TrialConfig, build_config
from carray.errors import WeightsError
from carray.search.space.space import SearchSpace
from carray.search.space.validation import check_against_timm


def check_weights(space: SearchSpace, folder: str | os.PathLike[str] | None) -> None:
    """Refuse weights that this machine can't have; nothing is downloaded.

    They are looked for in `folder` first, or `$CARRAY_WEIGHTS` where that is None.

    Raises:
        ConfigError: a backbone's name is unknown.
        WeightsError: they are neither in a folder nor in the hub's cache, and the hub is silent.
    """
    from carray.models.weights import check_obtainable

    check_against_timm(space)
    for backbone, pretrained in sources_of_weights(space):
        if pretrained:
            check_obtainable(backbone, pretrained, folder)


def has_weights(
    backbone: str, pretrained: bool | str, folder: str | os.PathLike[str] | None
) -> bool:
    """Say whether this machine can have the weights that a trial begins with, if any."""
    from carray.models.weights import check_obtainable

    try:
        if pretrained:
            check_obtainable(backbone, pretrained, folder)
    except WeightsError:
        return False
    return True


def sources_of_weights(space: SearchSpace) -> list[tuple[str, bool | str]]:
    """Return (backbone, pretrained) of every backbone and source of weights."""
    return [(config.backbone, config.pretrained) for config in one_config_a_branch(space)]


def one_config_a_branch(space: SearchSpace) -> Iterator[TrialConfig]:
    """Yield a config for every backbone and source of weights that a trial may have."""
    seen = set()
    for _, block in space.branches():
        ends = {name: drawn.ends()[0] for name, drawn in block.search.items()}
        for backbone in block.values_of("backbone"):
            for pretrained in block.values_of("pretrained"):
                if (backbone, pretrained) not in seen:
                    seen.add((backbone, pretrained))
                    chosen = {"backbone": backbone, "pretrained": pretrained}
                    yield build_config({**block.fixed, **ends, **chosen})
