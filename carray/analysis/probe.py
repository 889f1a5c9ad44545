"""Which backbones are worth fine-tuning: ranked by a linear probe on features, in minutes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from carray.config import CLASSICAL_HEADS, TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.errors import CarrayError, ConfigError
from carray.json_file import JsonResult
from carray.models.registry import check_name, full_name
from carray.predictions.statistics import Scores, scores_of_log_p
from carray.progress import silent
from carray.records import StudyFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.search.space.loading import load_space
from carray.search.space.space import SearchSpace
from carray.search.warm_start.probed import ProbeRecord, probe_file, read_probe
from carray.search.warm_start.study_curves import USED
from carray.training.dataset import TrialData, open_data
from carray.training.features.probe import probe_backbone
from carray.typing import Progress

LOG_LOSS = "val/log_loss"
FEWEST_PAIRS = 3  # of backbones: of fewer, tau is one of two or three values


@dataclass(frozen=True)
class ProbedBackbone:
    """One candidate, on `val`, with 95 % intervals."""

    backbone: str
    """As it was named."""
    parameters: int
    scores: Scores
    seconds: float


@dataclass(frozen=True)
class Foretold:
    """How well probes' rankings agree with what fine-tuning reached."""

    tau: float | None
    """Kendall's, 1 the same order and -1 the reverse; None where it isn't known."""
    pairs: int
    """Pairs of backbones that were both probed and fine-tuned, on the same data and size."""
    data_sets: int


@dataclass(frozen=True)
class Probe(JsonResult):
    """What a linear probe says of some backbones on one data set."""

    data: str
    image_size: int
    images: int
    """On which they are judged."""
    ranked: tuple[ProbedBackbone, ...]
    """The best first."""
    left_out: tuple[tuple[str, str], ...]
    """(backbone, why) of those that couldn't be probed."""
    foretold: Foretold
    space: str | None


def probe(
    data: str | os.PathLike[str],
    backbones: Sequence[str] = (),
    *,
    space: str | None = None,
    image_size: int | None = None,
    runs: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Probe:
    """Rank backbones by a linear probe on frozen features, and record it for the next search.

    Args:
        data: a folder made by `carray.prepare`.
        backbones: timm's names; () takes those of `space`.
        space: a search space, for its backbones and its image size.
        image_size: pixels of a side; None: the space's, else 224.
        runs: the runs folder: where it is recorded, and whose studies tell how well it foretells.
        weights: a folder of pretrained weights, looked in first.
        progress: shows how far the features of each backbone are.

    Raises:
        ConfigError: no backbone is named, or timm doesn't know one.
        CarrayError: none could be probed; the first one's reason.
        DataError: the folder is no prepared data set, or has no `val`.
    """
    where, manifest = RunsFolder.at(runs), Manifest.load(os.fspath(data))
    known = load_space(space) if space else None
    configs = _configs(tuple(backbones), known, image_size)
    size = configs[0].image_size
    trial_data = open_data(os.fspath(data), configs[0], progress)
    done, left_out = list[ProbedBackbone](), list[tuple[str, str]]()
    for config in configs:
        try:
            done.append(_probed(config, trial_data, weights, progress))
        except CarrayError as error:
            if len(configs) == 1 + len(left_out) and not done:
                raise
            left_out.append((config.backbone, str(error)))
    done.sort(key=lambda each: each.scores.log_loss.value)
    _record(where, manifest.hash, size, done)
    return Probe(
        data=str(manifest.folder),
        image_size=size,
        images=len(trial_data.held["val"]),
        ranked=tuple(done),
        left_out=tuple(left_out),
        foretold=foretold(where, size),
        space=space,
    )


def _configs(
    backbones: Sequence[str], space: SearchSpace | None, image_size: int | None
) -> list[TrialConfig]:
    """Return one configuration for each candidate; names are looked at before anything starts."""
    names = list(dict.fromkeys(backbones or (space.backbones() if space else ())))
    if not names:
        raise ConfigError(
            "no backbone is named: give some, as in --backbones resnet50 convnext_tiny, or a space "
            "whose backbones are candidates, as in --space photographs"
        )
    for name in names:
        check_name(name)
    sizes = (
        [int(size) for _, block in space.branches() for size in block.values_of("image_size")]
        if space
        else []
    )
    fixed = {} if image_size is None and not sizes else {"image_size": image_size or max(sizes)}
    return [build_config({"backbone": name, **fixed}) for name in names]


def _probed(
    config: TrialConfig,
    data: TrialData,
    weights: str | os.PathLike[str] | None,
    progress: Progress,
) -> ProbedBackbone:
    start = time.monotonic()
    found = probe_backbone(config, data, weights, progress)
    labels = np.asarray(data.images.labels[data.held["val"]])
    scores = scores_of_log_p(found.log_p, labels)
    seconds = time.monotonic() - start
    return ProbedBackbone(config.backbone, found.parameters, scores, seconds)


def _record(
    runs: RunsFolder, manifest_hash: str, image_size: int, done: Iterable[ProbedBackbone]
) -> None:
    """Record the losses; those of before stay where they are of the same image size."""
    file, losses = probe_file(runs, manifest_hash), {}
    before = read_probe(runs, manifest_hash)
    if before and before.image_size == image_size:
        losses = dict(before.losses)
    losses |= {full_name(each.backbone): each.scores.log_loss.value for each in done}
    file.parent.mkdir(parents=True, exist_ok=True)
    record = ProbeRecord(manifest_hash=manifest_hash, image_size=image_size, losses=losses)
    record.write(file)
    runs.keep(file)


def foretold(runs: RunsFolder, image_size: int) -> Foretold:
    """Compare recorded probes with recorded studies, on each data set that has both.

    Of each backbone counts the best log-loss on `val` of any trial that fine-tuned it at this
    image size. Data sets weigh by their pairs of backbones.
    """
    from scipy.stats import kendalltau

    taus, weights = [], []
    for manifest_hash, studies in _by_data(runs).items():
        probed = read_probe(runs, manifest_hash)
        if probed is None or probed.image_size != image_size:
            continue
        tuned = _fine_tuned(studies, image_size)
        shared = [name for name in probed.losses if name in tuned]
        if len(shared) > 1:
            found = kendalltau([probed.losses[n] for n in shared], [tuned[n] for n in shared])
            taus.append(float(found.statistic))
            weights.append(len(shared) * (len(shared) - 1) // 2)
    pairs = sum(weights)
    tau = float(np.average(taus, weights=weights)) if pairs >= FEWEST_PAIRS else None
    return Foretold(tau, pairs, len(taus))


def _by_data(runs: RunsFolder) -> dict[str, list[StudyFolder]]:
    found: dict[str, list[StudyFolder]] = {}
    for folder in runs.studies():
        found.setdefault(folder.record().manifest_hash, []).append(folder)
    return found


def _fine_tuned(studies: Iterable[StudyFolder], image_size: int) -> dict[str, float]:
    """Return the best log-loss on `val` of each backbone's fine-tuned trials."""
    best: dict[str, float] = {}
    for record in (record for folder in studies for record in folder.records()):
        losses = [row[LOG_LOSS] for row in record.epochs if np.isfinite(row.get(LOG_LOSS, np.nan))]
        if losses and record.config.image_size == image_size and _is_fine_tuned(record):
            name = full_name(record.config.backbone)
            best[name] = min([best.get(name, np.inf), *losses])
    return best


def _is_fine_tuned(record: TrialRecord) -> bool:
    config = record.config
    return (
        record.state in USED
        and config.pretrained is True
        and config.fold is None
        and config.finetune.policy != "head_only"
        and config.head.kind not in CLASSICAL_HEADS
    )
