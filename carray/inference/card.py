"""Metadata of a model package: `card.json`, and the `config.json` of each member."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from carray.config import InputSpec, TrialConfig, describe
from carray.errors import RecordError
from carray.files import write_text
from carray.predictions.averaging import AverageOf, WeightedAverage
from carray.predictions.combination import Combination
from carray.predictions.views import Tta


class _Json(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def write(self, path: Path) -> None:
        """Write aside, then rename."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `path`; raises RecordError where it can't be read, with the reason."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError:
            raise RecordError(f"there is no model package here: {path} is missing") from None
        except ValidationError as error:
            raise RecordError(f"{path} can't be read: {describe(error)}") from None


class MemberCard(_Json):
    """`members/K/config.json`: all that is needed to build one member and feed it."""

    trial: str
    config: TrialConfig
    input: InputSpec
    """Mean and standard deviation travel with the weights: others cost accuracy in silence."""


class MemberEntry(_Json):
    """One member in `card.json`."""

    folder: str
    """Relative to the package."""
    trial: str
    backbone: str
    weight: float
    sha256: str
    """Of its weights file."""


class Card(_Json):
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
    tta: Tta | None = None
    """The views that every image is seen in; None where it is seen once, whole."""
    preprocessing: str
    crop: Literal["none", "box"] = "none"
    """`box`: training images were cut to their boxes, so these should be too."""
    margin: float = 0.0
    """How much a box grows, as a share of its sides."""
    merge: dict[str, str] = {}
    """Class name in the source -> the class that it became."""
    manifest_hash: str = ""
    results: dict[str, Any] = {}
    """Rules, the comparison on test with its intervals, the verdict; as `Ensemble.as_dict`."""
    made_at: float = 0.0
    """Unix time, seconds."""
    git_commit: str = ""
    versions: dict[str, str] = {}

    @property
    def combination(self) -> Combination:
        """How the members' predictions are combined."""
        weights = tuple(member.weight for member in self.members)
        members = tuple(range(len(weights)))
        average = WeightedAverage(members, weights, self.space, self.temperature)
        return Combination(average, self.rule, self.tta)
