"""One configuration on every fold, or with several seeds, one trial each, outside a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.errors import ConfigError, DataError, counted
from carray.models.recipes import complete_config
from carray.progress import silent
from carray.records import TrialRecord
from carray.runs_folder import RunsFolder
from carray.training.train import OnBatch, OnEpoch, PathLike, Trainer
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
            f"--folds {folds} asks for {counted(folds, 'fold')} and {manifest.folder} has "
            f"{manifest.num_folds}: `carray data prepare ... --folds K` cuts train into K >= 2"
        )
    where = RunsFolder.at(runs)
    trainer = Trainer(manifest, where, study, weights, on_epoch, on_batch, progress)
    return [trainer.attempt(chosen.model_copy(update={"fold": fold})) for fold in range(folds)]


def train_seeds(
    data: PathLike,
    config: TrialConfig | Mapping[str, Any] | None,
    seeds: int,
    *,
    runs: PathLike | None = None,
    study: str = "single",
    weights: PathLike | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
    progress: Progress = silent,
) -> list[TrialRecord]:
    """Train one configuration with several seeds, its own and those that follow it, as trials of
    the folder `study`: how much a score owes to chance, and members for an ensemble.

    A seed that is complete already is not trained again, and one that fails keeps no other from
    being trained. The arguments are those of `carray.train`.

    Returns:
        The trials' records, by seed, complete or not.

    Raises:
        ConfigError: `seeds` is less than 1.
        ConfigError, DataError, WeightsError, RecordError: as `carray.train`.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} must be at least 1")
    manifest = Manifest.load(data)
    chosen = complete_config(config, len(manifest.rows("train")))
    where = RunsFolder.at(runs)
    trainer = Trainer(manifest, where, study, weights, on_epoch, on_batch, progress)
    own = range(chosen.seed, chosen.seed + seeds)
    return [trainer.attempt(chosen.model_copy(update={"seed": seed})) for seed in own]
