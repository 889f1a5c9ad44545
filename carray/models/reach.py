"""Which backbones' pretrained weights can be had: from a folder, a cache, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carray.models.hub import hub_error
from carray.models.registry import source_config
from carray.models.weights import PathLike, find_weights


def within_reach(backbones: Sequence[str], folder: PathLike | None) -> tuple[list[str], str]:
    """Return those whose weights are in `folder` (or `$CARRAY_WEIGHTS`), cached, or on the hub.

    Nothing is downloaded; the hub is asked once whether it answers.

    Returns:
        The backbones, and why the others have none; "" where all are within reach.
    """
    here = [b for b in backbones if find_weights(b, True, folder) or _is_cached(b)]
    if len(here) == len(backbones):
        return here, ""
    why = hub_error()
    return (here, why) if why else (list(backbones), "")


def _is_cached(backbone: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    source = source_config(backbone)
    repository = str(source.get("hf_hub_id") or "").partition("@")[0]
    if not repository:
        return False
    names = [source.get("hf_hub_filename") or "model.safetensors", "pytorch_model.bin"]
    found = (try_to_load_from_cache(repository, name) for name in names)
    return any(isinstance(file, str) and Path(file).is_file() for file in found)
