"""What a study tries first: the points that it is given, its space's, or the known recipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from carray.errors import counted
from carray.runs_folder import RunsFolder
from carray.search.request import StudyRequest, sampler_name
from carray.search.sampling.samplers import BLIND
from carray.search.space.space import SearchSpace
from carray.search.warm_start.known_recipes import recipe_points
from carray.search.warm_start.probed import in_probe_order, read_probe
from carray.search.warm_start.starting_points import NO_STARTS, shipped_points, start_points


@dataclass(frozen=True)
class StartingPoints:
    """What a study tries first: points by Optuna's names."""

    points: list[dict[str, Any]] = field(default_factory=list)
    whose: str = ""
    """As the console says it."""
    moved: list[str] = field(default_factory=list)
    """What of the known recipes lies outside the space."""

    def lines(self) -> list[str]:
        """Return what the console says of them."""
        if not self.points:
            return []
        head = f"starting points: {len(self.points)}, tried first ({self.whose})"
        return [head, *(f"known recipe of {each}" for each in self.moved)]


def resolve_starting_points(
    request: StudyRequest, space: SearchSpace, runs: RunsFolder, manifest_hash: str = ""
) -> StartingPoints:
    """Return what to try first: the request's points, else the space's, else the known recipes.

    A space that says where to start is believed, and a study that draws blindly is left alone. The
    others try each backbone's known recipe, then the points of the shipped portfolio. Where the
    backbones were probed on these data, points that nobody asked for come in the probe's order.
    """
    asked = request.start_from
    if asked == (NO_STARTS,):
        return StartingPoints()
    if asked:
        return StartingPoints(start_points(space, asked, runs), f"--start-from {' '.join(asked)}")
    probe = read_probe(runs, manifest_hash)

    def ordered(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return in_probe_order(space, points, probe) if probe else points

    if space.starts or sampler_name(request, space) in BLIND:
        own = space.start_points()
        return StartingPoints(ordered(own), f"the space's own{_by(ordered(own), own)}")
    known, moved = recipe_points(space, space.images or 0)
    shipped = [point for point in shipped_points(space) if point not in known]
    points = [*ordered(known), *ordered(shipped)]
    recipes = counted(len(known), "known recipe")
    whose = f"{recipes}, {len(shipped)} shipped; --start-from none has none"
    return StartingPoints(points, f"{whose}{_by(points, [*known, *shipped])}", moved)


def _by(points: list[dict[str, Any]], before: list[dict[str, Any]]) -> str:
    return "" if points == before else "; in the order of `carray probe`"
