"""Which space a study searches: the one named, the one that it was begun with, or a default.

The default goes by what the images are, and by which pretrained weights can be had.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from carray.data.manifest import Manifest
from carray.data.synthetic import MODELS
from carray.errors import ConfigError
from carray.records import StudyFolder
from carray.runs_folder import RunsFolder
from carray.search.request import StudyRequest
from carray.search.space.loading import load_space
from carray.search.space.space import BLOCK, SearchSpace
from carray.search.space.validation import checked
from carray.search.space.yaml_reader import parse_space
from carray.yaml_loader import parse

FROM_SCRATCH, ON_CPU, ON_GPU = "quick", "photographs", "backbones"
DEFAULTS = (ON_GPU, ON_CPU, FROM_SCRATCH)


def resolve_space(
    request: StudyRequest, manifest: Manifest, runs: RunsFolder
) -> tuple[SearchSpace, str]:
    """Return the space, with what the request fixes in it, and why it is this, if none was named.

    A study that was begun goes on with its own.
    """
    note = ""
    if request.space is not None:
        space = load_space(request.space)
    elif begun := _begun_study(request, manifest, runs):
        space = parse_space(begun.space_file.read_text("utf-8"), begun.record().space_file)
        note = f"space {Path(space.name).stem}: study {begun.path.name} was begun with it"
    else:
        space, note = default_space(manifest, request.weights, _has_gpu(request))
    fixed = dict(request.overrides)
    if request.max_epochs is not None:
        fixed["epochs"] = request.max_epochs
    space = checked(space.with_fixed(fixed)) if fixed else space
    space = _as_begun(space, runs.study(study_name(request, space, manifest)))
    return replace(space, images=len(manifest.rows("train"))), note


def _as_begun(space: SearchSpace, folder: StudyFolder) -> SearchSpace:
    """Return the space with the objective that the study was begun with, where it names none."""
    if space.names_metric or not folder.record_file.exists():
        return space
    begun = folder.record()
    return replace(space, metric=begun.metric, direction=begun.direction)


def study_name(request: StudyRequest, space: SearchSpace, manifest: Manifest) -> str:
    """Return the study's name: the request's, else the space's and the data's.

    Raises:
        ConfigError: no folder can have it.
    """
    name = request.name or f"{Path(space.name).stem}-{manifest.name}"
    if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise ConfigError(f"--study {name!r} can't name a folder; use letters, digits, - and _")
    return name


def _begun_study(request: StudyRequest, manifest: Manifest, runs: RunsFolder) -> StudyFolder | None:
    """Return the study that a request without a space goes on with, if it was begun."""
    data = manifest.name
    names = [request.name] if request.name else [f"{space}-{data}" for space in DEFAULTS]
    same = [
        folder
        for folder in map(runs.study, names)
        if folder.space_file.exists()
        and folder.record_file.exists()  # else it was killed before
        and folder.record().manifest_hash == manifest.hash
    ]
    return max(same, key=lambda folder: folder.record().started_at, default=None)


def _has_gpu(request: StudyRequest) -> bool:
    """Say whether lanes will have one; a cluster elsewhere is taken to."""
    import torch

    return request.address is not None or torch.cuda.is_available()


def default_space(
    manifest: Manifest, weights: str | os.PathLike[str] | None, has_gpu: bool
) -> tuple[SearchSpace, str]:
    """Return the space that suits the data, and a sentence that says which and why.

    The toy cars are learned from scratch. Photographs want pretrained backbones: those of
    `backbones` on a GPU, else those of `photographs`, as far as their weights can be had.
    """
    if set(manifest.classes) <= {model.label for model in MODELS}:
        return load_space(FROM_SCRATCH), f"space {FROM_SCRATCH}: these are the toy cars"
    from carray.models.reach import within_reach

    name = ON_GPU if has_gpu else ON_CPU
    space = load_space(name)
    there, why = within_reach(space.backbones(), weights)
    if not there:
        return load_space(FROM_SCRATCH), (
            f"space {FROM_SCRATCH}, from scratch: no pretrained weights can be had ({why}), which "
            "photographs gain most by; bring some in a folder and name it with --weights or "
            "$CARRAY_WEIGHTS"
        )
    machine = "a GPU" if has_gpu else "no GPU"
    line = f"space {name}: photographs, {machine}"
    if len(there) < len(space.backbones()):
        space = _only(space, there)
        line += f"; of its backbones {', '.join(there)}, for there are no weights of others ({why})"
    return space, f"{line}; --space names another"


def _only(space: SearchSpace, backbones: list[str]) -> SearchSpace:
    """Return the space with the blocks of these backbones alone, written anew."""
    import yaml

    own = {a: b for a, b in space.blocks.items() if set(b.values_of("backbone")) <= set(backbones)}
    content = parse(space.text, space.name).value
    content["backbones"] = {alias: content["backbones"][alias] for alias in own}
    content["start"] = [p for p in content.get("start") or [] if p.get(BLOCK) in own]
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return parse_space(f"# {space.question}\n{text}", space.name)
