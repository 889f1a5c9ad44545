"""Before a study's budget is spent: whether each of its backbones can overfit 32 images."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from carray.config import TrialConfig, build_config
from carray.errors import ConfigError, counted
from carray.search.space.distributions import Distribution
from carray.search.space.space import BLOCK, SearchSpace

if TYPE_CHECKING:
    from carray.training.overfit_check import OverfitResult

_logger = logging.getLogger(__name__)


def preflight(
    space: SearchSpace,
    data: str | os.PathLike[str],
    say: Callable[[str], None] = _logger.info,
    weights: str | os.PathLike[str] | None = None,
) -> list[OverfitResult]:
    """Try one typical configuration of each backbone; `say` is told each verdict; default: logged.

    Typical is the space's first starting point of the backbone, else the middle of every range
    and the first of every choice. Pretrained weights are looked for in the folder `weights` first.

    Raises:
        ConfigError: a backbone can't overfit; one that only ran out of time is let through.
    """
    from carray.training.overfit_check import sanity

    verdicts = []
    for config in typical_configs(space):
        verdict = sanity(data, config, weights=weights)
        result = "pass" if verdict.passed else "too slow to tell" if verdict.out_of_time else "FAIL"
        say(f"preflight {verdict.backbone}: {result}, {verdict.reason}")
        verdicts.append(verdict)
    failed = [v for v in verdicts if not (v.passed or v.out_of_time)]
    if failed:
        reasons = "; ".join(f"{v.backbone}: {v.reason}" for v in failed)
        raise ConfigError(
            f"the preflight failed for {len(failed)} of {counted(len(verdicts), 'backbone')}: "
            f"{reasons}"
        )
    return verdicts


def typical_configs(space: SearchSpace, largest: Sequence[str] = ()) -> list[TrialConfig]:
    """Return one configuration for every backbone that a trial may have.

    Of the parameters `largest` it has the largest value that a trial may have.
    """
    found: dict[str, TrialConfig] = {}
    for alias, branch in space.branches():
        middle = {name: _middle(drawn) for name, drawn in branch.search.items()}
        most = {n: _largest(branch.search[n]) for n in largest if n in branch.search}
        start = next((point for point in space.starts if point.get(BLOCK) == alias), {})
        given = {name: value for name, value in start.items() if name != BLOCK}
        for backbone in branch.values_of("backbone"):
            params = {**branch.fixed, **middle, **given, **most, "backbone": backbone}
            found.setdefault(f"{alias} {backbone}", build_config(params))
    return list(found.values())


def _largest(drawn: Distribution) -> Any:
    return max(drawn.ends(), key=lambda value: float(str(value)))


def _middle(drawn: Distribution) -> Any:
    """Return the middle of a range, the geometric one of a logarithmic range."""
    ends = drawn.ends()
    raw = drawn.raw()
    if "choice" in raw:
        return ends[0]
    low, high = (float(str(end)) for end in ends)
    if "loguniform" in raw:
        return (low * high) ** 0.5
    return round((low + high) / 2) if "int" in raw else (low + high) / 2
