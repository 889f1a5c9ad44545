"""Metadata of a model package: `card.json`, and the `config.json` of each member."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from carray.config import InputSpec, TrialConfig
from carray.json_file import JsonFile
from carray.predictions.averaging import AverageOf, Stack, WeightedAverage
from carray.predictions.combination import Combination
from carray.predictions.views import Tta


class _CardFile(JsonFile):
    missing: ClassVar[str] = "there is no model package here: {path} is missing"
    broken: ClassVar[str] = "{path} can't be read: {why}"


class MemberCard(_CardFile):
    """`members/K/config.json`: all that is needed to build one member and feed it."""

    trial: str
    config: TrialConfig
    input: InputSpec
    """Mean and standard deviation travel with the weights: others cost accuracy in silence."""


class MemberEntry(JsonFile):
    """One member in `card.json`."""

    folder: str
    """Relative to the package."""
    trial: str
    backbone: str
    weight: float
    sha256: str
    """Of its weights file."""


class Card(_CardFile):
    """`card.json`."""

    version: Literal[1] = 1
    what: str
    """One sentence for people."""
    name: str
    kind: Literal["ensemble", "single"]
    study: str
    classes: tuple[str, ...]
    members: tuple[MemberEntry, ...]
    rule: str
    space: AverageOf = "probability"
    temperature: float = 1.0
    stack: Stack | None = None
    """Weights of each class, where `space` is `stack`."""
    tta: Tta | None = None
    """The views that every image is seen in; None where it is seen once, whole."""
    preprocessing: str
    crop: Literal["none", "box"] = "none"
    """`box`: training images were cut to their boxes, so these should be too."""
    margin: float = 0.0
    """How much a box grows, as a share of its sides."""
    merge: dict[str, str] = Field(default_factory=dict)
    """Class name in the source -> the class that it became."""
    manifest_hash: str = ""
    results: dict[str, Any] = Field(default_factory=dict)
    """Rules, the comparison on test with its intervals, the verdict; as `Ensemble.as_dict`."""
    made_at: float = 0.0
    """Unix time, seconds."""
    git_commit: str = ""
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def combination(self) -> Combination:
        """How the members' predictions are combined."""
        weights = tuple(member.weight for member in self.members)
        members = tuple(range(len(weights)))
        average = WeightedAverage(members, weights, self.space, self.temperature, self.stack)
        return Combination(average, self.rule, self.tta)
