"""`Soup`: the result of `make_soup`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carray.json_file import JsonResult
from carray.predictions.statistics import Comparison, Scores


@dataclass(frozen=True)
class Barrier:
    """What lies between the weights of a trial and those of the best."""

    trial: str
    height: float
    """Nats of log-loss on `val` above the straight line, at its highest; below 0: none."""
    is_passable: bool


@dataclass(frozen=True)
class SoupRow:
    """Something's scores where the soup was judged, at temperatures from its other images."""

    what: str
    models: int
    """How many look at an image."""
    scores: Scores


@dataclass
class Soup(JsonResult):
    """An average of trials' weights, and what it is worth."""

    study: str
    trial: str
    """The soup as a trial: `STUDY-soup/0000`."""
    soup_of: tuple[str, ...]
    rule: str
    """`uniform soup` or `greedy soup`."""
    barriers: tuple[Barrier, ...]
    rows: tuple[SoupRow, ...]
    against_single: Comparison
    """`single` is the best trial, `ensemble` the soup."""
    against_vote: Comparison
    """`single` is the soft vote of the trials that no barrier parts, `ensemble` the soup."""
    judged_on: str
    temperature: float
    package: Path | None = None
    seconds: float = 0.0

    def results(self) -> dict[str, Any]:
        """Return what the package's card keeps."""
        names = ("soup_of", "rule", "barriers", "rows", "against_single", "against_vote")
        found = self.as_dict()
        return {name: found[name] for name in (*names, "judged_on")}
