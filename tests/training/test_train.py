"""Single trials: to the end, on where they were killed, and again."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from carray import metrics
from carray.config import build_config
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from carray.errors import ConfigError, DataError, DiskError, RecordError, WeightsError
from carray.models.backbones import build_backbone
from carray.models.weights import weights_hash
from carray.records import TrialFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.training import checkpoint
from carray.training.overfit_check import sanity
from carray.training.reproduce import attainable_hardware, reproduce
from carray.training.train import train, train_trial
from tests.training.orders import SMALL, scores_of, small_config

ONE_EPOCH, TWO_EPOCHS = SMALL | {"epochs": 1}, SMALL | {"epochs": 2}


def scores(record: TrialRecord) -> list[dict[str, float]]:
    return [scores_of(row) for row in record.epochs]


class Killed(BaseException):
    """Stands for a kill in the middle of a trial."""


def kill_after(epochs: int) -> object:
    def on_epoch(record: TrialRecord) -> None:
        if len(record.epochs) == epochs:
            raise Killed

    return on_epoch


@pytest.fixture(scope="module")
def once_trained(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Path:
    """A runs folder with one trial of one epoch, to be copied."""
    runs = tmp_path_factory.mktemp("once")
    train(toy_data, ONE_EPOCH, runs=runs)
    return runs


@pytest.fixture
def once(once_trained: Path, tmp_path: Path) -> TrialRecord:
    """The trial of `once_trained`, in `tmp_path`."""
    shutil.copytree(once_trained, tmp_path, dirs_exist_ok=True)
    return RunsFolder.at(tmp_path).find_trial("single/0").record()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> TrialRecord:
    """A trial that nothing stopped."""
    return train(toy_data, SMALL, runs=tmp_path_factory.mktemp("whole"))


def test_a_trial_leaves_a_record_logits_and_weights(tmp_path: Path, toy_data: Path) -> None:
    record = train(toy_data, TWO_EPOCHS, runs=tmp_path)
    assert record.state is TrialState.COMPLETE
    assert (record.study, record.number, record.kind) == ("single", 0, "single")
    assert len(record.epochs) == 2
    assert record.initialisation == "random:0"
    assert record.versions["timm"]
    assert record.ended_at is not None
    folder = RunsFolder.at(tmp_path).find_trial("single/0")
    assert folder.record() == record
    assert folder.logits_file.exists()
    assert folder.weights_file.exists()
    assert not folder.checkpoint.exists()
    study = RunsFolder.at(tmp_path).study("single")
    assert study.record().kind == "single"
    assert study.record().metric == record.config.best_metric == "val/calibrated_log_loss"
    assert study.labels_file.exists()


def test_calls_with_other_folders_of_weights_leave_one_another_and_the_environment_alone(
    tmp_path: Path, toy_data: Path
) -> None:
    recipe = SMALL | {"epochs": 1, "pretrained": True, "backbone": "test_resnet"}
    hashes = {}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        file = tmp_path / name / "test_resnet.safetensors"
        file.parent.mkdir()
        save_file(build_backbone(build_config(recipe)).state_dict(), file)
        hashes[name] = f"test_resnet:{weights_hash(file)}"
    before = dict(os.environ)
    for name in ("one", "two"):
        record = train(toy_data, recipe, runs=tmp_path / name, weights=tmp_path / name)
        assert record.initialisation == hashes[name]
        assert sanity(toy_data, recipe, weights=tmp_path / name, images=4, seconds=0.001).passes
    again = partial(reproduce, "single/0", runs=tmp_path / "one")
    assert again(weights=tmp_path / "one").agrees
    assert not again(weights=tmp_path / "two").agrees
    for call in (again, partial(train, toy_data, recipe, runs=tmp_path / "neither")):
        with pytest.raises(WeightsError, match="no weights for backbone"):
            call()
    assert dict(os.environ) == before


def test_another_trial_takes_the_next_number(tmp_path: Path, toy_data: Path) -> None:
    (tmp_path / "studies" / "single" / "trials" / "0000").mkdir(parents=True)  # killed at its start
    numbers = [
        train(toy_data, SMALL | {"epochs": 1, "seed": seed}, runs=tmp_path).number
        for seed in (0, 1, 0)
    ]
    assert numbers == [0, 1, 2]


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_trial_goes_on_where_it_stopped(
    tmp_path: Path, toy_data: Path, whole: TrialRecord, after: int
) -> None:
    with pytest.raises(Killed):
        train(toy_data, SMALL, runs=tmp_path, on_epoch=kill_after(after))  # type: ignore[arg-type]
    stopped = RunsFolder.at(tmp_path).find_trial("single/0").record()
    assert stopped.state is TrialState.RUNNING
    assert len(stopped.epochs) == after
    seen: list[int] = []
    record = train(
        toy_data, SMALL, runs=tmp_path, on_epoch=lambda record: seen.append(len(record.epochs))
    )
    assert record.number == 0
    assert seen == list(range(after + 1, 4))
    assert scores(record) == [pytest.approx(row, abs=1e-6) for row in scores(whole)]


def test_a_trial_killed_before_its_last_record_is_completed(tmp_path: Path, toy_data: Path) -> None:
    config = small_config(epochs=1)
    record = train_trial(config, toy_data, tmp_path, number=4)
    folder = TrialFolder(tmp_path)
    running = {"state": TrialState.RUNNING, "ended_at": None}
    folder.write_record(record.model_copy(update=running))
    again = train_trial(config, toy_data, tmp_path, number=4)
    assert again.state is TrialState.COMPLETE
    assert again.epochs == record.epochs


def test_a_trial_killed_at_its_early_stop_does_not_train_on(tmp_path: Path, toy_data: Path) -> None:
    params = SMALL | {
        "early_stop_patience": 1,
        "optimizer.lr": 1e-10,
        "best_metric": "val/top1",
        "epochs": 9,
    }
    with pytest.raises(Killed):
        train(toy_data, params, runs=tmp_path, on_epoch=kill_after(2))  # type: ignore[arg-type]
    record = train(toy_data, params, runs=tmp_path)
    assert len(record.epochs) == 2
    assert record.reason.startswith("val/top1 has not improved")


def test_a_failed_trial_says_why_in_its_record(tmp_path: Path, toy_data: Path) -> None:
    wild = SMALL | {
        "device_batch_size": 8,
        "optimizer.name": "sgd",
        "optimizer.lr": 10.0,
        "optimizer.weight_decay": 1.0,
    }
    record = train(toy_data, wild, runs=tmp_path)
    assert record.state is TrialState.FAILED
    assert "loss is nan" in record.reason


def test_a_finished_trial_is_not_run_again(tmp_path: Path, toy_data: Path) -> None:
    config = small_config(epochs=1)
    record = train_trial(config, toy_data, tmp_path, number=0)
    assert train_trial(config, toy_data, tmp_path, number=0) == record
    with pytest.raises(RecordError, match="another configuration"):
        train_trial(small_config(epochs=2), toy_data, tmp_path, number=0)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"backbone": "resent18"}, ConfigError),
        ({"optimizer.l_r": 1.0}, ConfigError),
        ({"precision": "fp16"}, ConfigError),
        ({"optimizer.name": "sgd", "optimizer.args.caution": True}, ConfigError),
        ({"fold": 3}, DataError),
        ({"pretrained": "nowhere.safetensors"}, WeightsError),
    ],
)
def test_what_cannot_start_writes_nothing(
    tmp_path: Path, toy_data: Path, params: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        train(toy_data, SMALL | params, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    images = render_toycars(folder / "images", seed=8, images_per_class=4)
    return prepare(images, folder / "data").folder


@pytest.mark.usefixtures("once")
def test_a_study_of_other_data_is_refused(tmp_path: Path, other_data: Path) -> None:
    with pytest.raises(RecordError, match=r"'single' is of the data set .* another name"):
        train(other_data, ONE_EPOCH, runs=tmp_path)
    assert train(other_data, ONE_EPOCH, runs=tmp_path, study="b").number == 0


def test_a_replay_agrees_and_leaves_no_trace(tmp_path: Path, toy_data: Path) -> None:
    record = train(toy_data, TWO_EPOCHS | {"augment.strength": 0.5}, runs=tmp_path)
    files = sorted(tmp_path.rglob("*"))
    done = reproduce(record.name, runs=tmp_path, epochs=2)
    assert done.agrees
    assert max(done.differences.values()) < 1e-4
    assert done.notes == ()
    assert sorted(tmp_path.rglob("*")) == files


def test_a_replay_takes_as_many_threads_as_then_and_gives_torchs_own_back(
    tmp_path: Path, toy_data: Path
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        record = train(toy_data, ONE_EPOCH, runs=tmp_path)
        torch.set_num_threads(1)
        done = reproduce(record.name, runs=tmp_path)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert record.hardware is not None
    assert (record.hardware.threads, record.hardware.ranks) == (3, 1)
    assert set(done.differences.values()) == {0.0}


def test_what_a_replay_cannot_have_is_said_before_its_first_epoch(
    tmp_path: Path, once: TrialRecord
) -> None:
    assert once.hardware is not None
    other = once.hardware.model_copy(update={"device": "Abacus 3000"})
    RunsFolder.at(tmp_path).find_trial(once.name).write_record(
        once.model_copy(update={"hardware": other})
    )
    heard: list[object] = []
    reproduce(
        once.name,
        runs=tmp_path,
        on_start=heard.append,
        on_epoch=lambda epoch, row: heard.append(epoch),
    )
    assert heard == [(f"device: Abacus 3000 then, {once.hardware.device} now",), 1]
    _, lacking = attainable_hardware(None, torch.device("cpu"))
    assert "threads and ranks" in lacking[0]


def test_a_replay_finds_data_that_are_at_a_url(
    tmp_path: Path, toy_data: Path, once: TrialRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "cache"))
    shutil.copytree(toy_data, tmp_path / "there")
    study = RunsFolder.at(tmp_path).study(once.study)
    there = study.record().model_copy(update={"data": (tmp_path / "there").as_uri()})
    there.write(study.record_file)
    assert reproduce(once.name, runs=tmp_path).agrees


def test_a_replay_that_differs_says_so_and_what_changed(tmp_path: Path, once: TrialRecord) -> None:
    folder = RunsFolder.at(tmp_path).find_trial(once.name)
    row = dict(once.epochs[0]) | {metrics.VAL_LOG_LOSS: 9.0}
    versions = once.versions | {"timm": "0.1"}
    folder.write_record(once.model_copy(update={"epochs": (row,), "versions": versions}))
    done = reproduce(once.name, runs=tmp_path)
    assert not done.agrees
    assert done.differences[metrics.VAL_LOG_LOSS] > 1
    assert any("timm 0.1 then" in note for note in done.notes)


def test_a_replay_on_other_data_is_refused(
    tmp_path: Path, once: TrialRecord, other_data: Path
) -> None:
    with pytest.raises(RecordError, match="was trained on"):
        reproduce(once.name, runs=tmp_path, data=other_data)


def test_a_stopped_trial_killed_before_its_last_record_keeps_why(
    tmp_path: Path, toy_data: Path
) -> None:
    stops = {"early_stop_patience": 1, "optimizer.lr": 1e-10, "best_metric": "val/top1"}
    config = small_config(**stops, epochs=9)
    record = train_trial(config, toy_data, tmp_path, number=0)
    running = {"state": TrialState.RUNNING, "reason": "", "ended_at": None}
    TrialFolder(tmp_path).write_record(record.model_copy(update=running))
    again = train_trial(config, toy_data, tmp_path, number=0)
    assert (again.state, again.reason) == (record.state, record.reason)
    assert again.reason.startswith("val/top1 has not improved")


def test_a_trial_that_another_process_trains_is_left_to_it(tmp_path: Path, toy_data: Path) -> None:
    refused = []

    def meanwhile(record: TrialRecord) -> None:
        with pytest.raises(RecordError, match=r"single/0000 .* by another process"):
            train(toy_data, ONE_EPOCH, runs=tmp_path)
        refused.append(train(toy_data, ONE_EPOCH | {"seed": 7}, runs=tmp_path).number)

    train(toy_data, ONE_EPOCH, runs=tmp_path, on_epoch=meanwhile)
    assert refused == [1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_is_one_sentence_and_the_trial_goes_on_later(
    tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = checkpoint._write_state, Path("/dev/full")
    with monkeypatch.context() as patch, pytest.raises(DiskError, match="free some; the same"):
        patch.setattr(checkpoint, "_write_state", lambda state, file: write(state, full))
        train(toy_data, ONE_EPOCH, runs=tmp_path)
    assert RunsFolder.at(tmp_path).find_trial("single/0").record().state == "running"
    record = train(toy_data, ONE_EPOCH, runs=tmp_path)
    assert (record.number, record.state) == (0, "complete")
