"""`StudyRecord`: what a study was asked for, and how it stands."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, computed_field

from carray import metrics
from carray.costs import BUDGET_SPENT, Cost
from carray.json_file import JsonFile
from carray.masking import MaskedText
from carray.records.trial_record import RECORD_VERSION


class StudyRecord(JsonFile):
    """One study: the question, the data, the budget; what resumes it."""

    version: int = RECORD_VERSION
    cure: ClassVar[str] = "move it away, and the study's own `carray tune` writes it anew"
    name: str
    kind: Literal["search", "single"] = "search"
    data: str = ""
    """Absolute path of the prepared data set, or its URL."""
    cut: dict[str, Any] = Field(default_factory=dict)
    """How its images were cut and classes merged, for packages; {} in records of before 0.2."""
    manifest_hash: str = ""
    classes: tuple[str, ...] = ()
    metric: str = metrics.VAL_LOG_LOSS
    objectives: tuple[str, ...] = ()
    """Where there are several: the metric, then costs of `TrialRecord.network_cost`."""
    space_file: str = ""
    space_hash: str = ""
    sampler: str = "tpe"
    scheduler: str = "asha"
    storage: str = ""
    """URL of Optuna's storage without its password; "" where it is `optuna.db`."""
    trials: int = 0
    """Trials asked for, all calls together."""
    max_epochs: int = 0
    extended_from: int | None = None
    """`max_epochs` before a later call asked for more; None where none has."""
    seed: int = 0
    recipe: bool = False
    """Whether what the space leaves open is a backbone's known recipe; else `TrialConfig`'s."""
    state: Literal["running", "complete", "interrupted", "failed"] = "running"
    budget_spent: bool = False
    """Whether the last call ended because its budget was spent, with trials left."""
    command: MaskedText = ""
    """The last call's command line, which goes on where that ended; "" of a call from Python."""
    cost: Cost | None = None
    """What all calls have held, from the start of their lanes to the end."""
    started_at: float = 0.0
    ended_at: float | None = None
    seconds: float | None = None
    """Of its calls, without the time between; None before the first has ended, and before 0.2."""
    git_commit: str = ""
    tracking: dict[str, str] = Field(default_factory=dict)
    """The tracking server's own ids of this study."""

    @property
    def standing(self) -> str:
        """How it stands, in words: its state, or that its budget is spent."""
        return BUDGET_SPENT if self.budget_spent and self.state == "complete" else self.state

    @property
    def objective(self) -> metrics.Objective:
        """What its trials are compared by."""
        return metrics.Objective(self.metric)

    @property
    def worked_seconds(self) -> float | None:
        """How long it was worked on; of an old record, from its start to its end; None unknown."""
        if self.seconds is not None or not (self.ended_at and self.started_at):
            return self.seconds
        return self.ended_at - self.started_at

    @computed_field  # type: ignore[prop-decorator]
    @property
    def direction(self) -> str:
        """`minimize` or `maximize`, as the metric wants; written for readers of the file."""
        return self.objective.direction
