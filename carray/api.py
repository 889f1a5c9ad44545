"""Everything that the command line does, as typed calls for notebooks and jobs.

import carray

manifest = carray.prepare("photos", "cars")
study = carray.tune("cars", "quick", trials=12, refit=3)
ensemble = study.ensemble(top=3)
ensemble.predict(["a.jpg", "b.jpg"])
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from carray.errors import ConfigError, did_you_mean
from carray.options import EnsembleOptions, TuneOptions
from carray.progress import silent
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.storage.remote import is_url
from carray.typing import Progress

if TYPE_CHECKING:
    import pandas as pd

    from carray.ensemble import Ensemble
    from carray.search.request import StudyRequest

PathLike = str | os.PathLike[str]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """A study that has been run: its trials, its best, its ensemble."""

    folder: StudyFolder
    runs: RunsFolder

    @property
    def where(self) -> str:
        """Where it lies: its folder, or its URL."""
        folder = self.folder.path.relative_to(self.runs.path)
        return f"{self.runs.shown}/{folder.as_posix()}"

    @property
    def record(self) -> StudyRecord:
        """What was asked, and how the study stands."""
        return self.folder.record()

    @property
    def trials(self) -> list[TrialRecord]:
        """Every trial and refit, by number."""
        return self.folder.records()

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial or refit that is best in the study's metric on `val`."""
        return self.record.objective.best(
            record
            for record in self.trials
            if record.state is TrialState.COMPLETE
            and record.best_epoch
            and record.config.fold is None
        )

    def leaderboard(self) -> pd.DataFrame:
        """Return the trials, best first: scores, epochs, seconds, and what was drawn as columns."""
        from carray.reports.listing import leaderboard

        return leaderboard(self.folder)

    def _repr_html_(self) -> str:
        """Show the study as a notebook does: how it stands, and its best trials."""
        from carray.reports.listing import html, status_lines

        return html(self.leaderboard(), status_lines(self.folder))

    def ensemble(self, top: int = 3, **options: Unpack[EnsembleOptions]) -> Ensemble:
        """Merge the best `top` trials; see `carray.ensemble.build_ensemble`."""
        from carray.ensemble import build_ensemble

        return build_ensemble(self.record.name, top=top, runs=self.runs.path, **options)


def tune(
    data: PathLike,
    space: PathLike | None = None,
    *,
    trials: int | None = None,
    name: str | None = None,
    runs: PathLike | None = None,
    weights: PathLike | None = None,
    as_json: bool = False,
    pictures: bool = True,
    **options: Unpack[TuneOptions],
) -> Study:
    """Search `space` on the prepared data set `data`; resume or extend the study of that name.

    Args:
        data: a folder that `prepare` has made, or the URL that `carray data push` has put it at.
        space: a YAML file, or the name of a shipped space; default: what suits the data, or that of
            the study `name`, which goes on.
        trials: in all, earlier calls' included; default: the space's, else 30.
        name: the study's; default: the space's and the data's.
        runs: where studies live; default: `$CARRAY_RUNS`, else `./runs`.
        weights: a folder of pretrained weights, looked in before the hub.
        as_json: write events as JSON lines.
        pictures: at the end, draw the best trial's confusion matrix and the study's picture, in
            their folders and runs.
        options: the other fields of `carray.search.request.StudyRequest`.

    Raises:
        ConfigError: an option is unknown; the nearest is named.
        CarrayError: the request can't be carried out.
        KeyboardInterrupt: interrupted; the same call goes on from there.
    """
    from carray.search.request import StudyRequest

    for option in options:
        if option not in TuneOptions.__annotations__:
            hint = did_you_mean(option, TuneOptions.__annotations__)
            raise ConfigError(f"carray.tune has no option {option!r}{hint}")
    request = StudyRequest(
        data=os.fspath(data) if is_url(data) else Path(data),
        space=None if space is None else str(space),
        trials=trials,
        name=name,
        runs=None if runs is None else str(runs),
        weights=None if weights is None else Path(weights),
        **options,
    )
    return run_request(request, as_json=as_json, pictures=pictures)


def run_request(request: StudyRequest, *, as_json: bool = False, pictures: bool = True) -> Study:
    """Run the study that `request` asks for; see `tune`."""
    from carray.search.observers.console import open_board
    from carray.search.waiting import waiting_for

    board = open_board(as_json)
    with waiting_for("libraries to load", board.note):
        from carray.search.run import run_study  # imports torch

    done = Study(run_study(request, board), RunsFolder.at(request.runs))
    _send_weights(done)
    best = done.best if pictures else None
    if best is not None:
        from carray.drawing import drawn_or_none
        from carray.reports.confusion import draw_confusion
        from carray.reports.pictures.plots import study_picture
        from carray.tracking.artifacts import STUDY_ITSELF, attach_or_warn

        drawn_or_none(lambda: draw_confusion(best.name, runs=request.runs).picture)
        if picture := drawn_or_none(lambda: study_picture(done.folder)):
            attach_or_warn(done.runs, done.record.name, STUDY_ITSELF, [picture])
    return done


def _send_weights(study: Study) -> None:
    """Put the best trials' weights at a tracking server, where there is one."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        from carray.ensemble.sent_weights import send_best_weights

        _, trouble = send_best_weights(study.runs, study.folder)
        if trouble:
            _logger.warning(trouble)


def toy_data(
    folder: PathLike,
    images_per_class: int = 60,
    progress: Progress = silent,
    *,
    val_size: float = 0.15,
    blend_size: float = 0.1,
    test_size: float = 0.15,
) -> Path:
    """Draw the project's toy cars into `folder/toycars`, once, and prepare them.

    Args:
        folder: where both go.
        images_per_class: toy cars of each of the 12 models, at least 4.
        progress: is told how far the drawing and the preparation are.
        val_size: share of the images that steers training and search, 0 to 1.
        blend_size: share that weights an ensemble's members.
        test_size: share that judges.

    Returns:
        `folder/data`, the prepared data set: 12 models of 4 brands, with flaws on purpose.
    """
    from carray.data.manifest import MANIFEST_FILE
    from carray.data.preparation.prepare import prepare
    from carray.data.synthetic import FLAWS_FILE, render_toycars

    images, data = Path(folder) / "toycars", Path(folder) / "data"
    if not (images / FLAWS_FILE).exists():
        render_toycars(images, images_per_class=images_per_class, progress=progress)
    if not (data / MANIFEST_FILE).exists():
        prepare(
            images,
            data,
            val_size=val_size,
            blend_size=blend_size,
            test_size=test_size,
            progress=progress,
        )
    return data


def load_study(name: str | None = None, runs: PathLike | None = None) -> Study:
    """Return the study `name`, or the newest; raises RecordError if there is none."""
    where = RunsFolder.at(runs)
    return Study(where.find_study(name), where)
