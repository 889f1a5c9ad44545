"""One configuration on every fold, one trial each, outside a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.errors import DataError
from carray.models.recipes import complete_config
from carray.progress import silent
from carray.records import TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.training.train import OnBatch, OnEpoch, PathLike, train
from carray.typing import Progress


def train_folds(
    data: PathLike,
    config: TrialConfig | Mapping[str, Any] | None,
    folds: int,
    *,
    runs: PathLike | None = None,
    study: str = "single",
    weights: PathLike | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
    progress: Progress = silent,
) -> list[TrialRecord]:
    """Train one configuration on each fold, one after the other, as trials of the folder `study`.

    A fold that is complete already is not trained again, and one that fails keeps no other from
    being trained. `carray tune --folds` trains them side by side. The arguments are those of
    `carray.train`.

    Returns:
        The trials' records, by fold, complete or not.

    Raises:
        DataError: the data were cut into another number of folds.
        ConfigError, WeightsError, RecordError: as `carray.train`.
    """
    manifest = Manifest.load(data)
    chosen = complete_config(config, len(manifest.rows("train")))
    if folds < 2 or folds != manifest.num_folds:
        raise DataError(
            f"--folds {folds} asks for {folds} folds and {manifest.folder} has "
            f"{manifest.num_folds}: `carray data prepare ... --folds K` cuts train into K >= 2"
        )
    records: list[TrialRecord] = []
    for fold in range(folds):
        own = chosen.model_copy(update={"fold": fold})
        done = find_complete(RunsFolder.at(runs), study, own, manifest.hash)
        records.append(
            done
            or train(
                data,
                own,
                runs=runs,
                study=study,
                weights=weights,
                on_epoch=on_epoch,
                on_batch=on_batch,
                progress=progress,
            )
        )
    return records


def find_complete(
    runs: RunsFolder, study: str, config: TrialConfig, manifest_hash: str
) -> TrialRecord | None:
    """Return the complete trial of this very configuration and data, if there is one."""
    for _, record in runs.study(study).trials():
        same = record.config == config and record.manifest_hash == manifest_hash
        if same and record.state is TrialState.COMPLETE:
            return record
    return None
