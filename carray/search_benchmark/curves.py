"""Sources of learning curves: each draws a point and knows its whole curve."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from carray.config import flatten
from carray.errors import RecordError, counted
from carray.records import StudyFolder
from carray.search.space.loading import load_space
from carray.search.space.space import SearchSpace
from carray.search.warm_start.recipe_distance import RecipeDistance, squared_distances
from carray.search.warm_start.study_curves import RecordedStudy, read_recorded
from carray.typing import Float64s

if TYPE_CHECKING:
    import optuna

FEWEST_CURVES = 10  # a table of fewer is no search space

Params = Mapping[str, Any]


class CurveSource(Protocol):
    """One data set whose trials cost nothing."""

    @property
    def name(self) -> str:
        """How tables call it."""

    @property
    def data(self) -> str:
        """Which data set: sources of one data set never lend each other starting points."""

    @property
    def metric(self) -> str:
        """What the curves are of; a name of `carray.metrics`."""

    @property
    def max_epochs(self) -> int:
        """Epochs of a full training."""

    @property
    def note(self) -> str:
        """What the curves are, where they aren't what they seem; at most 100 characters."""

    def draw(self, trial: optuna.Trial) -> Params:
        """Ask Optuna for one trial's values."""

    def curves(self, drawn: Sequence[Params]) -> Float64s:
        """Return the metric after each epoch, (trials, epochs), in the metric's own direction.

        Raises ConfigError if values make no valid trial.
        """

    def past(self, seed: int) -> RecordedStudy:
        """Return what a study of this data set would have left, for starting points elsewhere."""

    def starts(self, past: Sequence[RecordedStudy], size: int) -> list[dict[str, Any]]:
        """Distill what other data sets left into points of this one, by Optuna's names."""


class StudySource:
    """A study's own records: a draw gets the recorded curve of the nearest recipe.

    Curves of stopped trials are continued (`carray.search.warm_start.study_curves`), or a table
    would hold only what survived.
    """

    def __init__(self, recorded: RecordedStudy, space: SearchSpace) -> None:
        self.recorded = recorded
        self._space = space
        self._nearness = RecipeDistance.fit(recorded.points)
        self._places = self._nearness.vectors(recorded.points)

    @classmethod
    def open(cls, folder: StudyFolder) -> StudySource:
        """Read a study.

        Raises:
            RecordError: it has too few curves to search among, or all are of one recipe.
        """
        recorded = read_recorded(folder)
        if len(recorded.points) < FEWEST_CURVES:
            raise RecordError(
                f"study {recorded.name!r} has {counted(len(recorded.points), 'curve')}, a replay "
                f"needs {FEWEST_CURVES}; run more trials of it"
            )
        if all(point == recorded.points[0] for point in recorded.points):
            raise RecordError(
                f"study {recorded.name!r} tried one recipe with {len(recorded.points)} seeds: a "
                "replay needs a search among several"
            )
        return cls(recorded, load_space(folder.space_file))

    @property
    def name(self) -> str:
        """The study's name."""
        return self.recorded.name

    @property
    def data(self) -> str:
        """The manifest's hash."""
        return self.recorded.data

    @property
    def metric(self) -> str:
        """The study's metric."""
        return self.recorded.metric

    @property
    def max_epochs(self) -> int:
        """Epochs of the longest trial."""
        return int(self.recorded.curves.shape[1])

    @property
    def note(self) -> str:
        """How many curves there are, and how many have a made-up end."""
        trials = counted(len(self.recorded.full), "trial")
        stopped = int((~self.recorded.full).sum())
        return (
            f"{self.name[:40]}: a draw takes the nearest of {trials}; "
            f"the ends of {stopped} are made up"
        )

    def draw(self, trial: optuna.Trial) -> Params:
        """Draw from the study's space."""
        return self._space.draw(trial)

    def curves(self, drawn: Sequence[Params]) -> Float64s:
        """Return the curves of the recorded trials that are nearest."""
        recipes = [flatten(self._space.resolve(params)) for params in drawn]
        distances = squared_distances(self._nearness.vectors(recipes), self._places)
        found: Float64s = self.recorded.curves[distances.argmin(axis=1)]
        return found

    def past(self, seed: int) -> RecordedStudy:
        """Return the records themselves; there is only one past."""
        return self.recorded

    def starts(self, past: Sequence[RecordedStudy], size: int) -> list[dict[str, Any]]:
        """Distill, then keep what lies in this study's space."""
        from carray.search.warm_start.portfolio import build_portfolio
        from carray.search.warm_start.starting_points import place

        recipes = build_portfolio(past, size).recipes() if past else []
        placed = [place(self._space, recipe)[0] for recipe in recipes]
        return [self._space.by_optuna_names(point) for point in placed if point is not None]


def check_alike(metrics: Collection[str]) -> None:
    """Refuse sources of several metrics, which can't be averaged; raises RecordError."""
    metrics = set(metrics)
    if len(metrics) > 1:
        raise RecordError(
            f"the curves are of {' and '.join(sorted(metrics))}; replay studies of one metric"
        )


def worst_finite(curves: Float64s, sign: float) -> Float64s:
    """Return losses, lower is better, with what isn't finite as bad as the worst that is."""
    losses = sign * curves
    finite = losses[np.isfinite(losses)]
    worst = finite.max() if finite.size else 0.0
    found: Float64s = np.where(np.isfinite(losses), losses, worst)
    return found
