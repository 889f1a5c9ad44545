"""`Ensemble`: the result of `build_ensemble`, from which tables, cards and JSON are made."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carray.ensemble.budget import Budget
from carray.ensemble.tta import TtaRow
from carray.errors import RecordError
from carray.json_file import JsonResult
from carray.predictions.averaging import WeightedAverage
from carray.predictions.combination import SINGLE_TRIAL, Combination
from carray.predictions.statistics import NOT_BETTER, Comparison, Scores
from carray.predictions.views import Tta

if TYPE_CHECKING:
    from carray.inference.predictor import Model

ImagePath = str | Path
FIGURE_VERDICTS = {"better": "better", "worse": "worse", NOT_BETTER: "may be chance"}
CHOSE_EPOCHS = "val chose each trial's epoch: these scores flatter a little"
AS_IT_IS = (
    "log-loss is of the answers as they are; `carray ensemble` compares at fitted temperatures"
)
_LOADING = threading.Lock()  # not a field: an ensemble can be pickled


@dataclass(frozen=True)
class MemberRow:
    """One member of the ensemble, or the best single trial."""

    trial: str
    """`STUDY/0007`."""
    folder: Path
    backbone: str
    state: str
    weight: float
    """0 where the chosen rule gave it none."""
    val_log_loss: float
    val_top1: float
    blend_log_loss: float
    """On the images that the rules were judged on."""
    fold: int | None = None
    """The fold that stood for `val`; None where `val` did."""
    model: str = ""
    """Its backbone; with its head where that isn't linear."""
    val_value: float = math.nan
    """In `Ensemble.metric`, as the study's tables have it."""
    judged_value: float = math.nan
    """In it too, on the images that the rules were judged on."""


ALONE = "best single trial"  # the rule that it stands for, among those that it is held against


@dataclass(frozen=True)
class RuleRow:
    """One rule, judged on images that it wasn't fitted to."""

    rule: str
    members: int
    log_loss: float
    top1: float
    temperature: float
    chosen: bool
    value: float = math.nan
    """In `Ensemble.metric`."""


@dataclass(frozen=True)
class Ensemble(JsonResult):
    """An ensemble of trials: who is in it, by which rule, and what it is worth."""

    study: str
    """Its name; of several `A + B`."""
    name: str
    classes: tuple[str, ...]
    manifest_hash: str
    metric: str
    members: tuple[MemberRow, ...]
    rules: tuple[RuleRow, ...]
    rule: str
    blend: WeightedAverage
    """`blend.members` are numbers into `members`."""
    single: MemberRow
    """The best complete trial by `metric` on `val`."""
    single_temperature: float
    """Fitted as the ensemble's is, so that calibration alone is no gain: `test.single` is at it."""
    judged_on: str
    """`blend`, or `val, cross-fitted`."""
    judged_images: int
    test: Comparison | None
    """None where there is no test split, or it stayed closed."""
    models_that_opened_test: int
    notes: tuple[str, ...]
    seconds: float
    package: Path | None = None
    model_uri: str = ""
    single_untempered: Scores | None = None
    """The single trial on test at temperature 1: the figure that `carray compare` gives it."""
    kept_single: str = ""
    """Why the package holds the best single trial alone; "" where it holds the ensemble."""
    tta: Tta | None = None
    """The set of views that earned its place; None where none did or none was measured."""
    tta_rows: tuple[TtaRow, ...] = ()
    """What each measured set of views was worth where the rules were judged."""
    budget: Budget | None = None
    """What it had to keep to; None where it might cost anything."""
    milliseconds: float | None = None
    """Of the packaged members' networks, one image; None without a budget, as `mb`."""
    mb: float | None = None

    @property
    def chosen(self) -> tuple[MemberRow, ...]:
        """The members that have a weight, in the order of `blend`."""
        return tuple(self.members[number] for number in self.blend.members)

    @property
    def combination(self) -> Combination:
        """How the predictions of `chosen` are combined."""
        members = tuple(range(len(self.blend.members)))
        return Combination(replace(self.blend, members=members), self.rule, self.tta)

    @property
    def packaged(self) -> tuple[MemberRow, ...]:
        """The trials that the package holds."""
        return (self.single,) if self.kept_single else self.chosen

    @property
    def packaged_combination(self) -> Combination:
        """How the predictions of `packaged` are combined."""
        if not self.kept_single:
            return self.combination
        alone = WeightedAverage((0,), (1.0,), temperature=self.single_temperature)
        return Combination(alone, SINGLE_TRIAL.rule)

    @property
    def verdict(self) -> str:
        """Say in one sentence whether the ensemble beats the best single trial."""
        if self.test is None:
            return "The test split was not opened: nothing says yet what the ensemble is worth."
        if self.tta is None and [each.trial for each in self.chosen] == [self.single.trial]:
            return "The ensemble is the best single trial alone: there is nothing to compare."
        test = self.test
        log_loss = test.single.log_loss.value, test.ensemble.log_loss.value
        top1 = test.single.top1.value, test.ensemble.top1.value
        gains = "; ".join(
            f"{name} {single:.4f} -> {merged:.4f}, p = {p:.2g}: {FIGURE_VERDICTS[found]}"
            for name, (single, merged), p, found in (
                ("log-loss", log_loss, test.log_loss_p, test.log_loss_verdict),
                ("top-1", top1, test.top1_p, test.top1_verdict),
            )
        )
        sentence = {
            "better": "The ensemble is better than the best single trial on test",
            "worse": "The ensemble is WORSE than the best single trial on test",
            "not better": (
                "The ensemble is not shown to be better than the best single trial on test: "
                "the difference may be chance"
            ),
        }[test.verdict]
        return f"{sentence} ({gains})."

    def predict(self, images: Sequence[ImagePath]) -> npt.NDArray[np.float32]:
        """Return probabilities of image files, (images, classes).

        The first call loads the package; its models stay in memory as long as this object.

        Raises:
            RecordError: no package was written (`logits_only`).
            DataError: an image can't be read.
        """
        with _LOADING:  # threads that come at once load it once
            model = self._model
        return model.predict(images)

    @cached_property
    def _model(self) -> Model:
        if self.package is None:
            raise RecordError("this ensemble has no model package: build it without logits_only")
        from carray.inference.predictor import load_model

        return load_model(self.package)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: a copy in another process loads the package by itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_model"}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        data = super().as_dict()
        data["verdict"] = self.verdict
        if self.test is not None:
            names = ("verdict", "log_loss_verdict", "top1_verdict")
            data["test"] |= {name: getattr(self.test, name) for name in names}
        for shown, row in zip(data["tta_rows"], self.tta_rows, strict=True):
            shown["verdict"] = row.verdict
        return data
