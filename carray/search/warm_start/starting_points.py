"""Starting points from elsewhere: recipes of past studies and portfolios, put into a space.

A recipe names everything; a space draws some of it. What a space doesn't draw is dropped, what
lies just outside a range is moved to its end, and a recipe of another backbone or optimizer, or
one that lies further off, is left out: half a recipe would be a point that nobody ever tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from carray.config import default_of
from carray.errors import ConfigError, RecordError, did_you_mean
from carray.runs_folder import RunsFolder
from carray.search.space.distributions import Choice, Distribution, Range, Scalar, is_number
from carray.search.space.loading import spaces_folders
from carray.search.space.space import BLOCK, Block, SearchSpace
from carray.search.space.validation import wrong_whole
from carray.search.warm_start.portfolio import Portfolio, build_portfolio
from carray.search.warm_start.study_curves import read_recorded

NEAR_RANGE = 0.1  # of a range's width (its logarithm's for loguniform): how far outside is near
NEAR_CHOICE = 0.2  # of a listed number: how far from it is near
IDENTITY = ("backbone", "optimizer.name", "head.kind")  # a recipe with another is another recipe

NO_STARTS = "none"  # the source that is none: not even what would be taken by default
SHIPPED = "cars"  # the portfolio that is taken by default

Recipe = Mapping[str, Any]


def start_points(
    space: SearchSpace, sources: Sequence[str], runs: RunsFolder
) -> list[dict[str, Any]]:
    """Return the points of `sources` that lie in `space`, best first, by Optuna's names.

    Args:
        space: what the new study draws from.
        sources: names of studies under `runs`, which are distilled together, and portfolio files
            or names of shipped ones, whose points follow.
        runs: where studies live.

    Raises:
        ConfigError: a portfolio is broken, or no point lies in the space; the reasons are named.
        RecordError: a source is neither a study nor a portfolio, or a study has no full trial.
    """
    recipes = read_recipes(sources, runs)
    inside, outside = _placed(space, recipes)
    if not inside:
        reasons = "; ".join(f"{n} {why}" for why, n in Counter(outside).most_common(3))
        raise ConfigError(
            f"no starting point of {', '.join(sources)} lies in {space.name}: "
            f"{reasons or 'there are none'}"
        )
    return inside


def shipped_points(space: SearchSpace) -> list[dict[str, Any]]:
    """Return the points of the shipped portfolio that lie in `space`, perhaps none."""
    file = _portfolio_file(SHIPPED)
    return _placed(space, Portfolio.read(file).recipes())[0] if file else []


def _placed(
    space: SearchSpace, recipes: Sequence[Recipe]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the distinct points that lie in the space, by Optuna's names; why others don't."""
    inside: list[dict[str, Scalar]] = []
    outside: list[str] = []
    for recipe in recipes:
        point, reason = place(space, recipe)
        if point is None:
            outside.append(reason)
        elif point not in inside:
            inside.append(point)
    return [space.by_optuna_names(point) for point in inside], outside


def read_recipes(sources: Sequence[str], runs: RunsFolder) -> list[dict[str, Any]]:
    """Return the whole recipes of studies (distilled together), then of portfolios."""
    files = {source: found for source in sources if (found := _portfolio_file(source))}
    studies = [source for source in sources if source not in files]
    known = runs.study_names()
    for source in studies:
        if source not in known:
            near = did_you_mean(source, [*known, *(p.stem for p in shipped_portfolios())])
            raise RecordError(
                f"{source!r} is neither a study under {runs.path} nor a portfolio file{near}"
            )
    recipes: list[dict[str, Any]] = []
    if studies:
        recorded = [read_recorded(runs.find_study(name)) for name in dict.fromkeys(studies)]
        recipes += build_portfolio(recorded).recipes()
    for file in files.values():
        recipes += Portfolio.read(file).recipes()
    return recipes


def place(space: SearchSpace, recipe: Recipe) -> tuple[dict[str, Scalar] | None, str]:
    """Put a recipe into the space: (its point by dotted names, ""), or (None, why not)."""
    reasons = []
    fits: list[tuple[int, dict[str, Scalar]]] = []
    for alias, branch in space.branches():
        try:
            point = _in_branch(branch, recipe)
        except ConfigError as error:
            reasons.append((_how_far(str(error)), str(error)))
            continue
        point = point if alias is None else {BLOCK: alias, **point}
        if wrong := wrong_whole(replace(space, starts=(point,))):
            reasons.append((0, wrong[0][1]))
            continue
        fits.append((_conflicts(branch, recipe), point))
    if not fits:
        return None, min(reasons, key=lambda reason: reason[0])[1]
    return min(fits, key=lambda fit: fit[0])[1], ""


def shipped_portfolios() -> list[Path]:
    """Return the portfolios that can be named without a path."""
    folders = [folder / "portfolios" for folder in spaces_folders()]
    return [file for folder in folders for file in sorted(folder.glob("*.yaml"))]


def _portfolio_file(source: str) -> Path | None:
    given = Path(source).expanduser()
    if given.is_file():
        return given
    return next((file for file in shipped_portfolios() if file.stem == source), None)


def _in_branch(branch: Block, recipe: Recipe) -> dict[str, Scalar]:
    """Return what the branch draws of the recipe; raises ConfigError where it doesn't fit."""
    for name in IDENTITY:
        if name in recipe and name not in branch.search:
            fixed = branch.fixed.get(name, default_of(name))
            if not _same_name(fixed, recipe[name]):
                raise ConfigError(_other(name, recipe[name]))
    return {
        name: _admitted(drawn, name, recipe[name])
        for name, drawn in branch.search.items()
        if name in recipe
    }


def _admitted(drawn: Distribution, name: str, value: Any) -> Scalar:
    """Return `value` as `drawn` has it, moved to the nearest end or choice if that is near."""
    try:
        return drawn.admit(_moved(drawn, name, value))
    except ConfigError:
        raise ConfigError(
            _other(name, value) if name in IDENTITY else f"with {name} outside {drawn}"
        ) from None


def _moved(drawn: Distribution, name: str, value: Any) -> Any:
    if isinstance(drawn, Choice):
        if name in IDENTITY:
            return next((v for v in drawn.values if _same_name(v, value)), value)
        return _nearest_listed(drawn, value)
    if not is_number(value):
        return value
    if drawn.kind == "int":
        value = round(value)
    return _to_end(drawn, value)


def _to_end(drawn: Range, value: float) -> float:
    """Return the end of the range that `value` lies just outside of, or `value` itself."""
    end = min(max(value, drawn.low), drawn.high)
    if drawn.kind == "loguniform":
        off = abs(math.log(max(value, 1e-300) / end)) / math.log(drawn.high / drawn.low)
    else:
        off = abs(value - end) / (drawn.high - drawn.low)
    return end if off <= NEAR_RANGE else value


def _nearest_listed(drawn: Choice, value: Any) -> Any:
    if not is_number(value):
        return value
    listed = [v for v in drawn.values if is_number(v)]
    nearest = min(listed, key=lambda v: abs(v - value), default=value)
    return nearest if abs(nearest - value) <= NEAR_CHOICE * abs(nearest) else value


def _conflicts(branch: Block, recipe: Recipe) -> int:
    """Count what the branch fixes to something else than the recipe says."""
    return sum(name in recipe and recipe[name] != v for name, v in branch.fixed.items())


def _same_name(one: Any, other: Any) -> bool:
    """Compare names; a timm name without its tag is the same as one with any."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return bool(one == other)
    if "." in one and "." in other:
        return one == other
    return one.partition(".")[0] == other.partition(".")[0]


def _other(name: str, value: Any) -> str:
    return f"of another {name} ({value})"


def _how_far(reason: str) -> int:
    """Rank reasons: the branch that came nearest to fitting tells the most."""
    if reason.startswith("of another backbone"):
        return 2
    return 1 if reason.startswith("of another") else 0
