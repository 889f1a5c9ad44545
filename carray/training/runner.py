"""`TrialRunner`: trains one epoch of one trial, or finishes the trial, on order.

Every order is idempotent: what is done already is read back from the checkpoint, what was lost
with a dead process is built again and continues from there.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from carray import metrics
from carray.config import Compute, Hardware, InputSpec, TrialConfig
from carray.errors import RecordError, TrialFailed, TrialInfeasible
from carray.files import remove, remove_leftovers
from carray.metrics import EpochRow
from carray.models.backbones import stored_input_spec
from carray.models.classifier import Classifier, load_classifier, save_classifier
from carray.models.lora import merged_state
from carray.records import TrialFolder
from carray.storage.remote import patiently
from carray.training.batch_norm import recompute_batch_norm_statistics
from carray.training.checkpoint import (
    CheckpointMeta,
    checkpointed,
    load_checkpoint,
    new_stamp,
    read_meta,
    take_over_checkpoint,
)
from carray.training.compute.autotune import choose_compute
from carray.training.compute.collector import set_libraries_aside
from carray.training.compute.energy import EpochMeter
from carray.training.compute.malloc import keep_freed_memory, trim
from carray.training.compute.out_of_memory import (
    AgreedInfeasible,
    can_be_halved,
    infeasible_message,
    is_crowded,
    is_out_of_memory,
)
from carray.training.dataset import TrialData, open_data
from carray.training.epoch_order import EpochOrder, EpochOutcome
from carray.training.evaluation import evaluate, logits_of
from carray.training.features.frozen import FrozenBackbone
from carray.training.loop import EpochTrainStats, train_one_epoch
from carray.training.ranks import Ranks
from carray.training.stopping import best_epoch, stop_reason
from carray.training.teacher import load_teacher
from carray.training.trial_state import (
    ComputePolicy,
    LiveTrial,
    Numerics,
    build_live,
    build_numerics,
    check_precision,
    default_compute,
)

_logger = logging.getLogger(__name__)
MOST_LOADERS = 4  # threads that make batches beside a GPU


class TrialRunner:
    """Carries out orders on one rank; keeps the state of the trial that it ran last."""

    def __init__(
        self,
        ranks: Ranks,
        device: torch.device,
        num_threads: int = 0,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._ranks = ranks
        self._device = device
        self._on_batch = on_batch or (lambda images: None)
        self._live: LiveTrial | None = None
        self._halved = ""  # the trial whose batches are taken in halves, since memory ran out
        self._data: tuple[tuple[object, ...], TrialData] | None = None
        set_libraries_aside()
        keep_freed_memory()
        if num_threads > 0:
            torch.set_num_threads(num_threads)
        threads = num_threads or os.cpu_count() or 1
        on_gpu = device.type == "cuda"
        self._num_loaders = min(MOST_LOADERS, max(1, threads // 2)) if on_gpu else 1

    @property
    def _hardware(self) -> Hardware:
        return hardware_of(self._device, self._ranks.world_size)

    @property
    def live(self) -> LiveTrial | None:
        """The state of the trial that it ran last; None once that is released."""
        return self._live

    def holds(self, order: EpochOrder) -> bool:
        """Say whether memory holds the state that the order's epoch starts from."""
        meta = read_meta(TrialFolder(Path(order.folder)).checkpoint)
        return self._live is not None and _continues(self._live, order, meta)

    def run_epoch(self, order: EpochOrder) -> EpochOutcome:
        """Train and evaluate one epoch, leave its checkpoint, and the weights if it is the best.

        Epochs before it whose checkpoint is gone or torn are trained again first. Where memory
        runs out, the epoch is trained once more with half the batch and twice the accumulation.

        Raises:
            TrialFailed: a loss is not finite, or the checkpoint is another configuration's.
            TrialInfeasible: out of memory; what the trial held is freed.
            ConfigError, DataError, WeightsError: the trial can't be built.
        """
        try:
            return self._run_epoch(order)
        except AgreedInfeasible as error:
            if not self._may_halve(order):
                raise
            _logger.warning("%s: %s; each batch is now taken in two halves", order.trial, error)
            self._halved = order.trial
            return self._run_epoch(order)

    def _may_halve(self, order: EpochOrder) -> bool:
        """Say whether half a batch may fit: of a whole one, on a device that is this trial's."""
        crowded = self._ranks.any(is_crowded(self._device))
        whole = self._halved != order.trial and can_be_halved(order.config)
        meta = self._ranks.broadcast_object(self._begun(order))
        known = (meta.compute if meta else None) or order.compute
        return whole and not crowded and not (known and known.halved)

    def _run_epoch(self, order: EpochOrder) -> EpochOutcome:
        checkpoint = TrialFolder(Path(order.folder)).checkpoint
        meta = self._ranks.broadcast_object(self._begun(order))
        lost = range((meta.epoch if meta else 0) + 1, order.epoch)
        for epoch in lost:
            self.run_epoch(order.model_copy(update={"epoch": epoch}))
        if lost:
            meta = self._ranks.broadcast_object(read_meta(checkpoint))
        with self._freeing_on_error(order), _reproducible(self._device):
            if meta and meta.epoch >= order.epoch and meta.config == order.config:
                return outcome_of(meta.rows[: order.epoch], meta, self._hardware)
            live = self._live_for(order, meta)
            meter = EpochMeter(self._device)
            trained = train_one_epoch(
                live, order.epoch, self._ranks, self._num_loaders, self._on_batch
            )
            recompute_batch_norm_statistics(
                live, order.epoch, trained.steps, self._ranks, self._num_loaders
            )
            with checkpointed(checkpoint, live) if self._ranks.rank == 0 else nullcontext():
                live.rows.append(self._row(live, order.epoch, trained, meter))
                outcome = self._keep(live, order)
            self._ranks.barrier()
            return outcome

    def _begun(self, order: EpochOrder) -> CheckpointMeta | None:
        """Return what the checkpoint says; one that is taken over where the trial has none yet."""
        folder = TrialFolder(Path(order.folder))
        meta = read_meta(folder.checkpoint)
        if meta is None and order.continues and self._ranks.rank == 0:
            source = TrialFolder(Path(order.continues))
            return take_over_checkpoint(source, folder, order.trial, order.config)
        return meta

    def finish(self, order: EpochOrder) -> None:
        """Write the best weights' logits on the held splits; remove the checkpoint, unless kept.

        Raises:
            RecordError: the trial has no weights, since no epoch of it has ended.
            TrialInfeasible: out of memory.
        """
        folder = TrialFolder(Path(order.folder))
        is_left = order.keeps_checkpoint or not folder.checkpoint.exists()
        done = folder.logits_file.exists() and is_left
        if self._ranks.broadcast_object(done):
            return
        with self._freeing_on_error(order), _reproducible(self._device):
            self.release()
            if not folder.weights_file.exists():
                raise RecordError(f"{order.trial} has no weights in {folder.path}: no epoch ended")
            logits = self._held_logits(order, folder)
            if self._ranks.rank == 0:
                folder.write_logits(logits)
                remove_leftovers(folder.weights_file)
                if not order.keeps_checkpoint:
                    remove(folder.checkpoint)
            self._ranks.barrier()

    def release(self) -> None:
        """Free the trial's model, optimizer and memory, to the system and the device."""
        if self._live is not None and self._live.compute.compiled:
            torch.compiler.reset()
        self._live = None
        gc.collect()
        trim()
        if self._device.type == "cuda":
            torch._C._cuda_clearCublasWorkspaces()  # one for each stream that captured a graph
            torch.cuda.empty_cache()

    @contextmanager
    def _freeing_on_error(self, order: EpochOrder) -> Iterator[None]:
        """Free the trial after any error; say out of memory as TrialInfeasible."""
        try:
            yield
        except AgreedInfeasible:
            self.release()
            raise
        except BaseException as error:
            out_of_memory = is_out_of_memory(error)
            error.__traceback__ = None if out_of_memory else error.__traceback__  # holds tensors
            self.release()
            if not out_of_memory:
                raise
            kind = AgreedInfeasible if self._ranks.world_size == 1 else TrialInfeasible
            halved = self._halved == order.trial
            raise kind(infeasible_message(order.config, self._device, halved)) from None

    def _data_of(self, folder: str, config: TrialConfig) -> TrialData:
        key = (folder, config.image_size, config.fit, config.fold)
        if self._data is None or self._data[0] != key:
            self._data = None
            self._data = (key, patiently(lambda: open_data(folder, config)))
        return self._data[1]

    def _live_for(self, order: EpochOrder, meta: CheckpointMeta | None) -> LiveTrial:
        """Return the trial's state after the epoch before, from memory or from the checkpoint."""
        live = self._live
        if self._ranks.any(live is None or not _continues(live, order, meta)) or live is None:
            del live
            self.release()
            self._live = live = self._built(order, meta)
        return live

    def _built(self, order: EpochOrder, meta: CheckpointMeta | None) -> LiveTrial:
        if order.epoch > 1 and (meta is None or meta.epoch != order.epoch - 1):
            raise TrialFailed(
                f"epoch {order.epoch} of {order.trial} needs the checkpoint of epoch "
                f"{order.epoch - 1}, but {order.folder} holds another configuration's; move it away"
            )
        data = self._data_of(order.data, order.config)
        choose = self._chooser(order, meta, len(data.train))
        live = build_live(order.trial, order.config, data, self._device, choose, order.weights)
        live.teacher = load_teacher(order.config, self._device, order.teacher)
        if order.epoch > 1 and meta is not None:
            load_checkpoint(TrialFolder(Path(order.folder)).checkpoint, meta, live)
        return live

    def _chooser(
        self, order: EpochOrder, meta: CheckpointMeta | None, train_images: int
    ) -> ComputePolicy:
        """Return what decides how the trial computes: as before, as ordered, or by measuring."""
        check_precision(order.config, self._device)
        known = (meta.compute if meta else None) or order.compute

        def choose(classifier: Classifier) -> Compute:
            chosen = known
            if known is None and self._ranks.rank == 0:
                file = TrialFolder(Path(order.folder)).probe_file
                chosen = choose_compute(classifier, order.config, train_images, self._device, file)
            chosen = self._ranks.broadcast_object(chosen)
            if self._device.type != "cuda" or self._ranks.world_size > 1:
                # what was begun on one GPU goes on elsewhere; gradients of ranks meet as they come
                chosen = chosen.model_copy(update={"graphs": False})
            if self._halved == order.trial:
                chosen = chosen.model_copy(update={"halved": True})
            return chosen  # type: ignore[no-any-return]

        return choose

    def _row(
        self, live: LiveTrial, epoch: int, trained: EpochTrainStats, meter: EpochMeter
    ) -> EpochRow:
        """Judge the epoch; return its metrics, the same on all ranks."""
        scores = evaluate(live, self._ranks, self._num_loaders)
        log_loss = scores[metrics.VAL_LOG_LOSS]
        if not abs(log_loss) < float("inf"):
            raise TrialFailed(
                f"{metrics.VAL_LOG_LOSS} is {log_loss} after epoch {epoch} with lr "
                f"{trained.lr:.3g}; lower optimizer.lr"
            )
        row = dict(_row_of(live, trained, scores, meter.seconds))
        if (joules := meter.joules(self._ranks)) is not None:
            row[metrics.ENERGY_JOULES] = joules
        shared: EpochRow = self._ranks.broadcast_object(row)
        objective = live.config.best_metric
        live.plateau = live.plateau.after(live.config.schedule, objective, shared[objective])
        return shared

    def _keep(self, live: LiveTrial, order: EpochOrder) -> EpochOutcome:
        """Name the epoch's checkpoint; leave the weights of a best epoch before it."""
        outcome = outcome_of(live.rows, live, self._hardware)
        live.stamp = self._ranks.broadcast_object(new_stamp())
        if self._ranks.rank == 0 and outcome.is_best:
            folder = TrialFolder(Path(order.folder))
            save_classifier(merged_state(live.judged), folder.weights_file, live.spec)
        return outcome

    def _held_logits(self, order: EpochOrder, folder: TrialFolder) -> dict[str, Any]:
        config = order.config
        data = self._data_of(order.data, config)
        classifier = load_classifier(config, len(data.classes), folder.weights_file)
        spec = stored_input_spec(config, folder.weights_file, order.weights)
        meta = read_meta(folder.checkpoint)
        compute = meta.compute if meta else None
        compute = compute or default_compute(config, classifier, self._device)
        numerics = build_numerics(spec, compute, self._device)
        classifier.to(self._device, memory_format=numerics.memory_format)  # type: ignore[call-overload]
        frozen = _never_moved(meta, config, classifier, data, spec, numerics)
        return {
            split: logits_of(
                classifier, data, rows, config, numerics, self._ranks, self._num_loaders, frozen
            ).numpy()
            for split, rows in data.held.items()
        }


def _never_moved(
    meta: CheckpointMeta | None,
    config: TrialConfig,
    classifier: Classifier,
    data: TrialData,
    spec: InputSpec,
    numerics: Numerics,
) -> FrozenBackbone | None:
    """Return the backbone of a trial that trained its head alone; its features may be stored."""
    finetune = config.finetune
    if meta is None or finetune.policy != "head_only" or not finetune.feature_views:
        return None
    return FrozenBackbone(classifier, config, data, spec, numerics, meta.initialisation)


def _continues(live: LiveTrial, order: EpochOrder, meta: CheckpointMeta | None) -> bool:
    """Say whether `live` is the state that the order's epoch starts from."""
    expected = (order.trial, order.config, order.epoch - 1)
    stamp = meta.stamp if meta and order.epoch > 1 else ""
    return (live.trial, live.config, live.epoch) == expected and live.stamp == stamp


def hardware_of(device: torch.device, ranks: int = 1) -> Hardware:
    """Return what this process computes on, as one of `ranks`."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
    return Hardware(device=name, threads=torch.get_num_threads(), ranks=ranks)


def outcome_of(
    rows: Sequence[EpochRow],
    source: LiveTrial | CheckpointMeta,
    hardware: Hardware | None = None,
) -> EpochOutcome:
    """Return the outcome of the last of `rows`; a pure function of the epochs so far."""
    stop, ending = stop_reason(rows, source.config)
    return EpochOutcome(
        metrics=dict(rows[-1]),
        is_best=best_epoch(rows, source.config) == len(rows),
        stop=stop,
        ending=ending,
        parameters=source.parameters,
        initialisation=source.initialisation,
        compute=source.compute,
        hardware=hardware,
    )


def _row_of(
    live: LiveTrial, trained: EpochTrainStats, scores: dict[str, float], seconds: float
) -> EpochRow:
    return {
        metrics.TRAIN_LOSS: trained.loss,
        metrics.TRAIN_TOP1: trained.top1,
        metrics.TRAIN_SKILL: 1 - trained.loss / live.chance_loss,
        **scores,
        metrics.IMAGES_PER_SECOND: trained.images / trained.seconds,
        metrics.EPOCH_SECONDS: seconds,
        metrics.DATA_WAIT: min(1.0, trained.wait_seconds / trained.seconds),
        metrics.PEAK_MEMORY_GIB: trained.peak_memory_gib,
        metrics.LR: trained.lr,
    }


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Make runs repeatable, and put random numbers and cuDNN's flags back afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        cudnn.benchmark, cudnn.deterministic = False, True
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before
