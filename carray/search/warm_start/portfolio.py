"""Portfolios: a few recipes, learned from past studies, that a new study tries first.

Greedy over data sets: each next recipe is the one that most lowers what the best so far still
lacks, averaged over data sets, so it helps those that are least served. The idea is that of
Wistuba et al., "Sequential Model-Free Hyperparameter Tuning", ICDM 2015, and of Feurer et al.,
"Auto-Sklearn 2.0", JMLR 2022. There every recipe was tried on every data set; here a study says
what it thinks of another's recipe by those of its own that are near it, or that it doesn't know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carray.config import build_config
from carray.errors import ConfigError, RecordError, describe
from carray.files import write_text
from carray.runs_folder import RunsFolder
from carray.search.warm_start.recipe_distance import RecipeDistance, squared_distances
from carray.search.warm_start.study_curves import RecordedStudy, read_recorded
from carray.typing import Float64s
from carray.yaml_loader import parse

SIZE = 6  # recipes of a portfolio, where nothing else is said
WORST_REGRET = 3.0  # 0: the study's best trial; 1: its median one; worse than this is as bad
CANDIDATES = 0.2  # of a study's trials: how many recipes may join, the best ones
FEWEST_CANDIDATES = 3
UNKNOWN_WEIGHT = 0.1  # weight of "I don't know", which counts as the median trial
MIN_DISTANCE = 0.1  # recipes this near each other are one: a sampler draws around its best trials
KERNEL_WIDTHS = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)  # how far a trial may be heard


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(_Part):
    """A study that a portfolio was made from."""

    study: str
    data: str = ""
    """First 16 digits of the manifest's hash."""
    trials: int = Field(ge=1)
    epochs: int = Field(ge=1)


class Portfolio(_Part):
    """Recipes to try first, best first, by dotted names of `TrialConfig`."""

    version: Literal[1] = 1
    metric: str
    made_from: tuple[Origin, ...] = ()
    shared: dict[str, Any] = Field(default_factory=dict)
    """What all points have in common that don't say otherwise."""
    points: tuple[dict[str, Any], ...] = Field(min_length=1)

    def recipes(self) -> list[dict[str, Any]]:
        """Return each point with what is shared."""
        return [{**self.shared, **point} for point in self.points]

    @classmethod
    def of(
        cls, recipes: Sequence[Mapping[str, Any]], metric: str, made_from: Sequence[Origin]
    ) -> Self:
        """Make a portfolio of whole recipes; what they have in common is told once."""
        first, lacks = recipes[0], object()
        common = [
            name
            for name, value in first.items()
            if len(recipes) > 1 and all(each.get(name, lacks) == value for each in recipes)
        ]
        return cls(
            metric=metric,
            made_from=tuple(made_from),
            shared={name: first[name] for name in common},
            points=tuple({n: v for n, v in r.items() if n not in common} for r in recipes),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a portfolio's YAML.

        Raises:
            ConfigError: it can't be read, isn't one, or a point is no valid recipe.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the portfolio {path} can't be read: {error}") from None
        try:
            portfolio = cls.model_validate(parse(text, str(path)).value)
        except ValidationError as error:
            raise ConfigError(f"{path} is no portfolio: {describe(error)}") from None
        for number, recipe in enumerate(portfolio.recipes(), start=1):
            try:
                build_config(recipe)
            except ConfigError as error:
                raise ConfigError(f"{path}, point {number}: {error}") from None
        return portfolio

    def text(self) -> str:
        """Return the YAML form, with a comment that says what it is."""
        import yaml

        studies = ", ".join(origin.study for origin in self.made_from) or "no study"
        content = self.model_dump(mode="json")
        return f"# Recipes to try first, best first; distilled from {studies}.\n" + yaml.safe_dump(
            content, sort_keys=False, allow_unicode=True, width=100
        )

    def write(self, path: Path) -> None:
        """Write the YAML aside, then rename."""
        write_text(path, self.text())


def build_portfolio(studies: Sequence[RecordedStudy], size: int = SIZE) -> Portfolio:
    """Distill past studies into at most `size` recipes, best first.

    Studies of one data set share its weight, whatever their number.

    Raises:
        ConfigError: `size` is below 1.
        RecordError: there is no study, or they were scored by different metrics.
    """
    if size < 1:
        raise ConfigError(f"--size {size} must be at least 1")
    metrics = list(dict.fromkeys(study.metric for study in studies))
    if len(metrics) != 1:
        names = " and ".join(metrics) or "nothing"
        raise RecordError(f"a portfolio needs studies scored by one metric, not by {names}")
    chosen = choose(studies, size)
    origins = [
        Origin(
            study=study.name,
            data=study.data[:16],
            trials=len(study.points),
            epochs=study.curves.shape[1],
        )
        for study in studies
    ]
    return Portfolio.of([studies[s].points[t] for s, t in chosen], metrics[0], origins)


def portfolio_of_studies(
    names: Sequence[str], size: int = SIZE, runs: str | os.PathLike[str] | None = None
) -> Portfolio:
    """Build a portfolio of these studies; raises as `build_portfolio` and `find_study` do."""
    where = RunsFolder.at(runs)
    return build_portfolio([read_recorded(where.find_study(n)) for n in dict.fromkeys(names)], size)


def choose(studies: Sequence[RecordedStudy], size: int) -> list[tuple[int, int]]:
    """Return (study, trial) of the recipes that a portfolio takes, best first."""
    nearness = RecipeDistance.fit([point for study in studies for point in study.points])
    places = [nearness.vectors(study.points) for study in studies]
    candidates: list[tuple[int, int]] = []
    queries = np.empty((0, places[0].shape[1]))
    for index, (study, own) in enumerate(zip(studies, places, strict=True)):
        best = _best_of(study, own, queries)
        candidates += [(index, trial) for trial in best]
        queries = np.concatenate([queries, own[best]])
    opinions = np.stack(
        [_predicted_regret(study, own, queries) for study, own in zip(studies, places, strict=True)]
    )
    return [candidates[index] for index in greedy(_by_data_set(studies, opinions), size)]


def greedy(regrets: Float64s, size: int) -> list[int]:
    """Return `size` columns of `regrets` (data sets, recipes) that together leave little regret.

    Each next one is that which most lowers the mean over data sets of the best regret so far. When
    none does, as is soon so with one data set, the next layer begins: the best of what is left.
    """
    untouched = np.full(regrets.shape[0], np.inf)
    lacking = untouched
    chosen: list[int] = []
    while len(chosen) < min(size, regrets.shape[1]):
        left = np.minimum(lacking[:, None], regrets).mean(axis=0)
        left[chosen] = np.inf
        index = int(left.argmin())
        if left[index] >= lacking.mean() - 1e-12:
            lacking = untouched
            continue
        chosen.append(index)
        lacking = np.minimum(lacking, regrets[:, index])
    return chosen


def regrets_of(study: RecordedStudy) -> Float64s:
    """Return each trial's regret in [0, WORST_REGRET]: 0 is the study's best, 1 its median."""
    losses = study.losses
    width = float(np.median(losses) - losses.min())
    if width <= 0:
        return np.where(losses > losses.min(), 1.0, 0.0)
    regrets: Float64s = np.minimum((losses - losses.min()) / width, WORST_REGRET)
    return regrets


def _best_of(study: RecordedStudy, own: Float64s, taken: Float64s) -> list[int]:
    """Return the trials at the study's best recipes, none of which is `taken` or there twice."""
    count = max(FEWEST_CANDIDATES, round(CANDIDATES * len(study.points)))
    best: list[int] = []
    for index in np.argsort(study.losses, kind="stable"):
        if len(best) == count:
            break
        others = np.concatenate([taken, own[best]])
        if (squared_distances(own[[index]], others) > MIN_DISTANCE**2).all():
            best.append(int(index))
    return best


def _predicted_regret(study: RecordedStudy, own: Float64s, asked: Float64s) -> Float64s:
    """Return the regret that `study` expects of recipes at `asked`: a kernel mean of its trials.

    Its width is the one that best predicts the study's own trials, each from the others.
    """
    regrets = regrets_of(study)
    apart = squared_distances(own, own)
    np.fill_diagonal(apart, np.inf)
    errors = [np.square(_kernel_mean(apart, w, regrets) - regrets).mean() for w in KERNEL_WIDTHS]
    width = KERNEL_WIDTHS[int(np.argmin(errors))]
    return _kernel_mean(squared_distances(asked, own), width, regrets)


def _kernel_mean(squared: Float64s, width: float, regrets: Float64s) -> Float64s:
    weights = np.exp(-squared / (2 * width**2))
    known = weights @ regrets + UNKNOWN_WEIGHT * 1.0
    mean: Float64s = known / (weights.sum(axis=1) + UNKNOWN_WEIGHT)
    return mean


def _by_data_set(studies: Sequence[RecordedStudy], opinions: Float64s) -> Float64s:
    """Average the opinions of studies of one data set, (data sets, recipes)."""
    names = [study.data or study.name for study in studies]
    rows = [
        opinions[[index for index, name in enumerate(names) if name == data]].mean(axis=0)
        for data in dict.fromkeys(names)
    ]
    return np.stack(rows)
