"""Epochs on order: idempotent, repeatable, resumable, and nothing leaks."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from carray import metrics
from carray.data.manifest import Manifest
from carray.errors import ConfigError, DataError, RecordError, TrialFailed, TrialInfeasible
from carray.lanes.lane_rank import answer_to
from carray.lanes.messages import LaneOrder
from carray.models.classifier import load_classifier
from carray.records import TrialFolder
from carray.training import checkpoint
from carray.training.checkpoint import read_meta
from tests.training.orders import (
    little_memory,
    new_runner,
    order_of,
    run,
    scores_of,
    small_config,
)

CONFIG = small_config(augment__strength=0.4, dropout=0.2, augment__mixup=0.2)
WILD = small_config(  # every step multiplies the weights by -9
    optimizer__name="sgd", optimizer__lr=10.0, optimizer__weight_decay=1.0, epochs=9
)


@dataclass(frozen=True)
class Whole:
    """All epochs of `CONFIG` on a runner of their own; `folder/N` is as the Nth left it."""

    rows: list[dict[str, float]]
    folder: Path

    def begin(self, folder: Path, epochs: int) -> None:
        """Make the folder of a trial of which so many epochs are trained."""
        shutil.copytree(self.folder / str(epochs), folder, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Whole:
    folder, runner, rows = tmp_path_factory.mktemp("whole"), new_runner(), []
    for epoch in range(1, CONFIG.epochs + 1):
        rows += run(runner, folder / "trial", toy_data, CONFIG, epoch)
        shutil.copytree(folder / "trial", folder / str(epoch))
    return Whole(rows, folder)


def test_an_epoch_leaves_all_metrics_a_checkpoint_and_its_weights(
    tmp_path: Path, toy_data: Path
) -> None:
    outcome = new_runner().run_epoch(order_of(tmp_path, toy_data, CONFIG))
    assert set(outcome.metrics) == set(metrics.EPOCH_METRICS)
    assert all(np.isfinite(value) for value in outcome.metrics.values())
    assert outcome.is_best
    assert outcome.stop == ""
    assert outcome.initialisation == "random:0"
    assert outcome.parameters > 100_000
    folder = TrialFolder(tmp_path)
    assert folder.weights_file.exists()
    meta = read_meta(folder.checkpoint)
    assert meta is not None
    assert meta.epoch == 1
    assert 0 <= outcome.metrics[metrics.DATA_WAIT] <= 1
    assert outcome.metrics[metrics.PEAK_MEMORY_GIB] > 0.05


def test_a_trial_run_fourth_on_a_runner_is_the_trial_run_first(
    tmp_path: Path, toy_data: Path, whole: Whole
) -> None:
    """Other nets, sizes and optimizers before it, one that fails and one out of memory."""
    runner = new_runner()

    def logits(name: str) -> dict[str, np.ndarray]:
        runner.finish(order_of(tmp_path / name, toy_data, CONFIG, 3, trial=name))
        return {split: TrialFolder(tmp_path / name).logits(split) for split in ("val", "test")}

    larger = small_config(
        backbone="test_efficientnet", image_size=48, optimizer__name="sgd", seed=7
    )
    run(runner, tmp_path / "first", toy_data, larger, 1)
    with pytest.raises(TrialFailed):
        run(runner, tmp_path / "second", toy_data, WILD)
    huge = small_config(backbone="resnet10t", image_size=512, device_batch_size=64)
    with little_memory(), pytest.raises(TrialInfeasible, match="out of memory"):
        run(runner, tmp_path / "third", toy_data, huge, 1)
    assert run(runner, tmp_path / "fourth", toy_data, CONFIG) == whole.rows
    fourth = logits("fourth")
    whole.begin(tmp_path / "whole", 3)
    first = logits("whole")
    assert all(np.array_equal(fourth[split], first[split]) for split in first)
    other = run(runner, tmp_path / "other", toy_data, CONFIG.model_copy(update={"seed": 1}), 1)
    assert other[0][metrics.VAL_LOG_LOSS] != pytest.approx(whole.rows[0][metrics.VAL_LOG_LOSS])


@pytest.mark.parametrize(
    "changes",
    [
        {"ema_decay": 0.9, "optimizer__name": "sgd"},
        {"schedule__name": "plateau", "schedule__plateau_patience": 0, "accumulation": 3},
        {"finetune__policy": "gradual", "optimizer__name": "lamb", "optimizer__lr": 0.01},
    ],
)
def test_a_trial_that_continues_from_its_checkpoint_is_the_same(
    tmp_path: Path, toy_data: Path, changes: dict[str, object]
) -> None:
    config = small_config(augment__strength=0.4, dropout=0.2, drop_path=0.1, **changes)
    whole = run(new_runner(), tmp_path / "whole", toy_data, config)
    parts = [
        run(new_runner(), tmp_path / "parts", toy_data, config, epoch)[0] for epoch in (1, 2, 3)
    ]
    assert parts == [pytest.approx(row, abs=1e-6) for row in whole]


def test_a_continued_trial_is_its_whole_configuration_trained_from_the_start(
    tmp_path: Path, toy_data: Path
) -> None:
    """Mixing and patience begin again with the schedule; the better epoch may be one taken over."""
    short = CONFIG.model_copy(
        update={
            "early_stop_patience": 2,
            "augment": CONFIG.augment.model_copy(update={"mix_off_epochs": 1}),
        }
    )
    first, whole = new_runner(), short.continued(5)
    rows = run(first, tmp_path / "short", toy_data, short)
    first.finish(
        order_of(tmp_path / "short", toy_data, short, 3).model_copy(
            update={"keeps_checkpoint": True}
        )
    )
    order = order_of(tmp_path / "longer", toy_data, whole, 4, trial="longer").model_copy(
        update={"continues": str(tmp_path / "short")}
    )
    longer = [first.run_epoch(order.model_copy(update={"epoch": e})).metrics for e in (3, 4, 5)]
    first.finish(order.model_copy(update={"epoch": 5}))
    anew = run(new_runner(), tmp_path / "anew", toy_data, whole)
    assert [scores_of(row) for row in anew] == [scores_of(row) for row in [*rows[:2], *longer]]
    left = TrialFolder(tmp_path / "longer")
    assert left.logits("val").shape == TrialFolder(tmp_path / "short").logits("val").shape
    assert not left.checkpoint.exists()
    assert TrialFolder(tmp_path / "short").checkpoint.exists()


def test_a_continued_trial_whose_source_is_gone_is_trained_from_the_start(
    tmp_path: Path, toy_data: Path
) -> None:
    whole = CONFIG.model_copy(update={"epochs": 1}).continued(2)
    order = order_of(tmp_path / "longer", toy_data, whole, 2)
    gone = order.model_copy(update={"continues": str(tmp_path / "gone")})
    outcome = new_runner().run_epoch(gone)
    anew = run(new_runner(), tmp_path / "anew", toy_data, whole)
    assert scores_of(outcome.metrics) == scores_of(anew[1])


def test_two_trials_that_take_turns_do_not_disturb_each_other(
    tmp_path: Path, toy_data: Path, whole: Whole
) -> None:
    runner, other = new_runner(), small_config(seed=3)
    turns = []
    for epoch in (1, 2, 3):
        turns += run(runner, tmp_path / "a", toy_data, CONFIG, epoch)
        run(runner, tmp_path / "b", toy_data, other, epoch)
    assert turns == [pytest.approx(row, abs=1e-6) for row in whole.rows]


def test_an_epoch_asked_for_twice_is_trained_once(tmp_path: Path, toy_data: Path) -> None:
    images: list[int] = []
    runner = new_runner(images.append)
    first = runner.run_epoch(order_of(tmp_path, toy_data, CONFIG))
    trained = sum(images)
    assert trained > 0
    assert runner.run_epoch(order_of(tmp_path, toy_data, CONFIG)) == first
    assert new_runner().run_epoch(order_of(tmp_path, toy_data, CONFIG)) == first
    assert sum(images) == trained


def test_an_earlier_epoch_asked_for_again_is_read_back(tmp_path: Path, toy_data: Path) -> None:
    runner = new_runner()
    rows = run(runner, tmp_path, toy_data, CONFIG)
    assert run(new_runner(), tmp_path, toy_data, CONFIG, 2) == rows[1:2]
    assert run(runner, tmp_path, toy_data, CONFIG, 3) == rows[2:]


def test_a_checkpoint_swapped_under_the_runner_is_what_continues(
    tmp_path: Path, toy_data: Path
) -> None:
    """As population-based training does it: another trial's state, another configuration."""
    runner = new_runner()
    run(runner, tmp_path / "a", toy_data, CONFIG, 1)
    strong = small_config(optimizer__lr=1e-2, seed=5)
    run(runner, tmp_path / "b", toy_data, strong, 1)
    shutil.rmtree(tmp_path / "b" / "checkpoint")
    shutil.copytree(tmp_path / "a" / "checkpoint", tmp_path / "b" / "checkpoint")
    outcome = runner.run_epoch(order_of(tmp_path / "b", toy_data, strong, 2, trial="b"))
    assert outcome.metrics[metrics.LR] > 2e-3  # 1e-2 two thirds down the cosine
    meta = read_meta(tmp_path / "b" / "checkpoint")
    first = read_meta(tmp_path / "a" / "checkpoint")
    assert meta is not None
    assert first is not None
    assert meta.rows[0] == first.rows[0]


def test_an_epoch_that_fails_while_it_is_judged_leaves_the_checkpoint_before(
    tmp_path: Path, toy_data: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.begin(tmp_path / "torn", 1)
    with monkeypatch.context() as patched:
        patched.setattr(
            "carray.training.runner.evaluate", lambda *_: {metrics.VAL_LOG_LOSS: np.inf}
        )
        with pytest.raises(TrialFailed, match="is inf after epoch 2"):
            run(new_runner(), tmp_path / "torn", toy_data, CONFIG, 2)
    meta = read_meta(tmp_path / "torn" / "checkpoint")
    assert meta is not None and meta.epoch == 1
    assert not list((tmp_path / "torn").glob(".*"))
    again = run(new_runner(), tmp_path / "torn", toy_data, CONFIG, 2)
    assert again[0] == pytest.approx(whole.rows[1])


@pytest.mark.parametrize("lost", ["checkpoint", "meta.json", "state.pt"])
def test_epochs_whose_checkpoint_is_gone_or_torn_are_trained_again(
    tmp_path: Path, toy_data: Path, whole: Whole, lost: str
) -> None:
    """A file system that lost power, say; the study knows these epochs, and goes on."""
    whole.begin(tmp_path / "trial", 2)
    left = tmp_path / "trial" / "checkpoint"
    if lost == "checkpoint":
        shutil.rmtree(left)
    else:
        (left / lost).write_bytes((left / lost).read_bytes()[:100])
    assert run(new_runner(), tmp_path / "trial", toy_data, CONFIG, 3) == whole.rows[2:]


def test_a_trial_begun_with_a_gpus_graphs_goes_on_without_a_gpu(
    tmp_path: Path, toy_data: Path, whole: Whole
) -> None:
    whole.begin(tmp_path, 1)
    meta = read_meta(tmp_path / "checkpoint")
    assert meta is not None and meta.compute is not None
    graphs = meta.compute.model_copy(update={"graphs": True})
    on_gpu = meta.model_copy(update={"compute": graphs}).model_dump_json()
    (tmp_path / "checkpoint" / "meta.json").write_text(on_gpu)
    order = order_of(tmp_path, toy_data, CONFIG, 2, trial=tmp_path.name)
    assert new_runner().run_epoch(order).compute == meta.compute


def test_a_checkpoint_whose_state_is_not_its_classifiers_fails_the_trial(
    tmp_path: Path, toy_data: Path, whole: Whole
) -> None:
    whole.begin(tmp_path, 1)
    torch.save({}, tmp_path / "checkpoint" / "state.pt")
    with pytest.raises(TrialFailed, match=r"checkpoint .* can't be loaded"):
        run(new_runner(), tmp_path, toy_data, CONFIG, 2)


def test_a_loss_that_is_not_finite_fails_the_trial_with_step_and_lr(
    tmp_path: Path, toy_data: Path
) -> None:
    runner = new_runner()
    with pytest.raises(TrialFailed, match=r"loss is nan .* epoch \d+ with lr \d"):
        run(runner, tmp_path, toy_data, WILD)
    assert runner.live is None
    assert run(runner, tmp_path / "next", toy_data, CONFIG, 1)


def test_training_learns(tmp_path: Path, toy_data: Path) -> None:
    rows = run(
        new_runner(),
        tmp_path,
        toy_data,
        small_config(epochs=6, backbone="test_byobnet", optimizer__lr=1e-2),
    )
    assert rows[-1][metrics.TRAIN_LOSS] < 0.75 * rows[0][metrics.TRAIN_LOSS]


def test_patience_ends_the_trial_with_its_reason(tmp_path: Path, toy_data: Path) -> None:
    config = small_config(early_stop_patience=1, optimizer__lr=1e-10, best_metric="val/top1")
    runner = new_runner()
    first = runner.run_epoch(order_of(tmp_path, toy_data, config))
    assert first.stop == ""
    second = runner.run_epoch(order_of(tmp_path, toy_data, config, 2))
    assert not second.is_best
    assert second.stop == "val/top1 has not improved for 1 epoch (early_stop_patience=1)"


def test_accumulation_counts_its_steps_and_ends_at_the_floor(
    tmp_path: Path, toy_data: Path
) -> None:
    config = small_config(accumulation=4, schedule__min_lr_ratio=0.1, epochs=2)
    rows = run(new_runner(), tmp_path, toy_data, config)
    assert rows[-1][metrics.LR] == pytest.approx(3e-4)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path, toy_data: Path) -> None:
    same = {
        "backbone": "test_convnext",  # no batch norm: a batch's images don't see each other
        "augment__flip": False,
        "augment__strength": 0.0,
        "optimizer__name": "sgd",
        "optimizer__lr": 0.01,
        "epochs": 1,
    }
    eighth = len(Manifest.load(toy_data).rows("train")) // 8
    whole = small_config(**same, device_batch_size=2 * eighth)
    parts = small_config(**same, device_batch_size=eighth, accumulation=2)
    ours, theirs = (
        run(new_runner(), tmp_path / str(index), toy_data, config)[0]
        for index, config in enumerate((whole, parts))
    )
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_a_fold_is_judged_on_its_held_rows(tmp_path: Path, toy_manifest: Manifest) -> None:
    from carray.data.preparation.prepare import prepare

    folded = prepare(
        Path(toy_manifest.settings.images_folder),
        tmp_path / "data",
        folds=3,
        val_size=0.15,
        test_size=0.15,
    )
    config = small_config(fold=1, epochs=1)
    runner = new_runner()
    order = order_of(tmp_path / "t", folded.folder, config)
    runner.run_epoch(order)
    runner.finish(order)
    held = folded.fold_rows(1)[1]
    assert len(TrialFolder(tmp_path / "t").logits("val")) == len(held)


def test_finish_leaves_the_best_epochs_logits_in_manifest_order(
    tmp_path: Path, toy_manifest: Manifest
) -> None:
    runner, folder = new_runner(), TrialFolder(tmp_path)
    config = small_config(ema_decay=0.8, precision="fp32")
    rows = run(runner, tmp_path, toy_manifest.folder, config)
    runner.finish(order_of(tmp_path, toy_manifest.folder, config, 3))
    assert not folder.checkpoint.exists()
    assert folder.weights_file.exists()
    best = min(row[metrics.VAL_LOG_LOSS] for row in rows)
    logits = torch.from_numpy(folder.logits("val")).float()
    labels = torch.from_numpy(toy_manifest.labels[toy_manifest.rows("val")])
    assert F.cross_entropy(logits, labels).item() == pytest.approx(best, abs=2e-3)
    assert folder.logits("test").shape == (len(toy_manifest.rows("test")), 12)
    assert folder.logits("test").dtype == np.float16
    with pytest.raises(RecordError, match="no logits on 'blend'"):  # too small for that split
        folder.logits("blend")


def test_finish_works_after_a_restart_and_twice(
    tmp_path: Path, toy_data: Path, whole: Whole
) -> None:
    whole.begin(tmp_path, 2)
    order = order_of(tmp_path, toy_data, CONFIG, 2)
    new_runner().finish(order)
    first = TrialFolder(tmp_path).logits("test")
    written = TrialFolder(tmp_path).logits_file.stat().st_mtime_ns
    new_runner().finish(order)
    assert TrialFolder(tmp_path).logits_file.stat().st_mtime_ns == written
    assert np.isfinite(first).all()


def test_a_trial_without_weights_cannot_finish(tmp_path: Path, toy_data: Path) -> None:
    with pytest.raises(RecordError, match=r"no weights .* no epoch ended"):
        new_runner().finish(order_of(tmp_path, toy_data, CONFIG))


def test_nothing_of_a_run_stays_in_the_process(tmp_path: Path, toy_data: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    benchmark = torch.backends.cudnn.benchmark
    runner = new_runner()
    run(runner, tmp_path, toy_data, CONFIG, 1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.backends.cudnn.benchmark == benchmark
    runner.release()
    assert runner.live is None


def test_the_weights_carry_their_mean_and_std(whole: Whole) -> None:
    from carray.models.backbones import stored_input_spec

    file = TrialFolder(whole.folder / "1").weights_file
    assert stored_input_spec(CONFIG, file).mean == (0.5, 0.5, 0.5)
    assert load_classifier(CONFIG, 12, file)


def test_a_checkpoints_meta_data_are_readable_json(whole: Whole) -> None:
    meta = json.loads((whole.folder / "1" / "checkpoint" / "meta.json").read_text())
    assert meta["config"]["backbone"] == "test_resnet"
    assert len(meta["rows"]) == 1


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_loss_trains_in_every_precision_of_a_cpu(
    tmp_path: Path, toy_data: Path, loss: str, precision: str
) -> None:
    config = small_config(
        loss__name=loss, precision=precision, augment__cutmix=1.0, epochs=1, image_size=32
    )
    assert run(new_runner(), tmp_path, toy_data, config)


def test_half_precision_without_a_gpu_is_refused(tmp_path: Path, toy_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"precision='fp16' needs a GPU"):
        run(new_runner(), tmp_path, toy_data, small_config(precision="fp16"))


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(new_runner(), tmp_path / "t", tmp_path / "nowhere", CONFIG)


def test_scores_repeat_but_times_do_not_count() -> None:
    assert scores_of({metrics.LR: 1.0, metrics.EPOCH_SECONDS: 2.0}) == {metrics.LR: 1.0}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_leaves_an_epoch_undone_and_is_no_fault_of_the_trial(
    tmp_path: Path, toy_data: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, write, full = new_runner(), checkpoint._write_state, Path("/dev/full")
    first = run(runner, tmp_path, toy_data, CONFIG, 1)
    order = order_of(tmp_path, toy_data, CONFIG, 2, trial=tmp_path.name)
    with monkeypatch.context() as patch, pytest.raises(Exception) as refused:
        patch.setattr(checkpoint, "_write_state", lambda state, file: write(state, full))
        runner.run_epoch(order)
    answer = answer_to(refused.value, LaneOrder("epoch", order))
    assert answer.is_undone
    assert re.match(
        r"the disk of .* has too little room \(.* GiB free\): free some$", answer.reason
    )
    assert [each.name for each in tmp_path.glob(".checkpoint*")] == []
    assert first + run(runner, tmp_path, toy_data, CONFIG, 2) == whole.rows[:2]
