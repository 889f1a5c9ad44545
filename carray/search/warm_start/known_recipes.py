"""The known recipe of each backbone of a space: what a study tries first, what a refit changes.

The recipes are those of `carray.models.recipes`. What lies outside the space is moved to the
nearest value that it has, and said; what no recipe speaks of is at its default, or nearest to it.
"""

from __future__ import annotations

import math
from typing import Any

from carray.config import TrialConfig, build_config, default_of
from carray.records import TrialRecord
from carray.search.space.distributions import Choice, Distribution, Scalar, is_number
from carray.search.space.space import BLOCK, Block, SearchSpace

SETTLED_FIRST = (  # what a recipe depends on
    "backbone",
    "pretrained",
    "optimizer.name",
    "finetune.policy",
    "head.kind",
    "device_batch_size",
    "accumulation",
    "epochs",
    "schedule.name",
)
LABEL_SMOOTHING = "loss.label_smoothing"
WIDE = 10  # listed numbers that differ by such a ratio, rates say, are near or far by ratio
MOVED = 1.05  # a number further off than this ratio is said to be moved


def recipe_points(space: SearchSpace, images: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the points by Optuna's names, the most promising backbone first, and what was moved.

    Promising are pretrained weights before none, then the backbone of more parameters.

    Args:
        space: what the new study draws from.
        images: of one epoch.

    Raises:
        ConfigError: timm doesn't know a backbone.
    """
    from carray.models.recipes import count_parameters

    ranked: list[tuple[tuple[bool, int], dict[str, Scalar]]] = []
    moved: list[str] = []
    for alias, branch in space.branches():
        for backbone in branch.values_of("backbone"):
            point, own = _recipe_point(branch, backbone, images)
            config = {**branch.fixed, **point}
            promise = (not config.get("pretrained", True), -count_parameters(backbone))
            ranked.append((promise, point if alias is None else {BLOCK: alias, **point}))
            moved += [f"{backbone}: {each}" for each in own]
    ranked.sort(key=lambda each: each[0])
    return [space.by_optuna_names(point) for _, point in ranked], moved


def _recipe_point(branch: Block, backbone: str, images: int) -> tuple[dict[str, Scalar], list[str]]:
    """Return a value for everything that the branch draws, and what was moved to be in it."""
    from carray.models.recipes import known_recipe

    point: dict[str, Scalar] = {}
    for name in SETTLED_FIRST:
        if drawn := branch.search.get(name):
            value = backbone if name == "backbone" else default_of(name)
            point[name] = nearest(drawn, value)
    recipe = known_recipe({**branch.fixed, **point}, images)
    moved = []
    for name, drawn in branch.search.items():
        if name not in point:
            value = recipe.get(name, default_of(name))
            point[name] = nearest(drawn, value)
            if name in recipe and _is_far(value, point[name]):
                moved.append(f"{name} {value:g} is outside, {point[name]:g} was taken")
    build_config({**branch.fixed, **point})
    return point, moved


def refit_config(space: SearchSpace, of: TrialRecord, epochs: int, seed: int) -> TrialConfig:
    """Return what a trial is trained again by: its configuration, for another length and seed.

    A longer training has what the space's `refit` says, and see `longer_config`.
    """
    config = longer_config(space, of, epochs, seed)
    return build_config(space.refit, config) if epochs > of.config.epochs else config


def longer_config(space: SearchSpace, of: TrialRecord, epochs: int, seed: int) -> TrialConfig:
    """Return a trial's configuration for another length and seed.

    A longer training has no less label smoothing than the known recipe of its length, as far as the
    space lets it.
    """
    from carray.models.recipes import recipe_of

    config = of.config.model_copy(update={"epochs": epochs, "seed": seed})
    branch = dict(space.branches()).get(of.params.get(BLOCK), space.shared)  # a block may be gone
    if epochs <= of.config.epochs or not space.recipe or LABEL_SMOOTHING in branch.fixed:
        return config
    known = recipe_of(config.backbone, bool(config.pretrained)).smoothing_for(epochs)
    own, drawn = config.loss.label_smoothing, branch.search.get(LABEL_SMOOTHING)
    inside = float(str(nearest(drawn, known))) if drawn else known
    loss = config.loss.model_copy(update={"label_smoothing": max(own, inside)})
    return config.model_copy(update={"loss": loss})


def nearest(drawn: Distribution, value: Any) -> Scalar:
    """Return what `drawn` has that is nearest to `value`; else its first choice."""
    if isinstance(drawn, Choice):
        if value in drawn.values:
            return value  # type: ignore[no-any-return]
        numbers = [v for v in drawn.values if is_number(v)]
        if not numbers or not is_number(value):
            return drawn.values[0]
        as_ratio = value > 0 and min(numbers) > 0 and max(numbers) >= WIDE * min(numbers)
        distance = _ratio if as_ratio else lambda one, other: abs(one - other)
        return min(numbers, key=lambda each: distance(float(each), value))
    inside = min(max(value, drawn.low), drawn.high) if is_number(value) else drawn.low
    return drawn.admit(round(inside) if drawn.kind == "int" else inside)


def _is_far(value: Any, taken: Any) -> bool:
    if not (is_number(value) and is_number(taken)):
        return False
    if value > 0 and taken > 0:
        return _ratio(value, taken) > math.log(MOVED)
    return bool(value != taken)


def _ratio(one: float, other: float) -> float:
    """Return how far two positive numbers are apart, in logarithms."""
    return abs(math.log(one / other))
