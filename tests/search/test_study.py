"""Whole studies on a real Ray: every trial ends and leaves what it must, whatever happens."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import psutil
import pytest
import ray
from ray.util import placement_group_table

from carray.errors import RecordError
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.search.board import Board
from carray.search.opening import StudyRequest
from carray.search.study import run_study

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

SPACE = """
version: 1
metric: val/log_loss
direction: minimize
fixed: {epochs: 3, image_size: 32, pretrained: false, backbone: test_resnet, device_batch_size: 16}
search:
  optimizer.lr: {loguniform: [1e-4, 3e-2]}
start:
  - {optimizer.lr: 5e-3}
"""


class Listener(Board):
    """A board that remembers who had which epoch when, and calls back."""

    def __init__(self) -> None:
        super().__init__(stream=open(os.devnull, "w"))  # noqa: PTH123, SIM115
        self.epochs: list[tuple[float, TrialRecord]] = []
        self.on_epoch: list[threading.Event] = []
        self.notes: list[str] = []

    def epoch_ended(self, record: TrialRecord) -> None:
        super().epoch_ended(record)
        self.epochs.append((time.monotonic(), record))
        for event in self.on_epoch:
            event.set()

    def note(self, text: str) -> None:
        self.notes.append(text)


def request(data: Path, folder: Path, **options: object) -> StudyRequest:
    space = folder / "space.yaml"
    space.write_text(SPACE)
    settings = {"trials": 4, "name": "s", "runs": str(folder / "runs"), **options}
    return StudyRequest(data=data, space=str(space), **settings)  # type: ignore[arg-type]


def live_groups() -> list[object]:
    return [g for g in placement_group_table().values() if g["state"] != "REMOVED"]


def check_left(folder: StudyFolder, splits: Sequence[str] = ("val", "blend", "test")) -> None:
    """Check that every trial has ended, with a record and logits on every held split."""
    optuna_study = optuna.load_study(
        study_name=folder.path.name, storage=f"sqlite:///{folder.optuna_file}"
    )
    told = {trial.number: trial.state.name for trial in optuna_study.trials}
    for files, record in folder.trials():
        assert record.state in (TrialState.COMPLETE, TrialState.PRUNED), record.reason
        for split in splits:
            logits = files.logits(split)
            assert logits.shape == (len(folder.labels(split)), 12)
        assert not files.checkpoint.exists()
        if record.kind == "search":
            assert record.sampler_number is not None
            assert told[record.sampler_number].lower() == record.state


def test_a_study_ends_and_its_refit_takes_both_lanes(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    board = Listener()
    wanted = request(toy_data, tmp_path, trials=5, refit=1, refit_epochs=4)
    folder = run_study(wanted, board)
    check_left(folder)
    records = [record for _, record in folder.trials()]
    assert [record.kind for record in records] == ["search"] * 5 + ["refit"]
    assert len(records[-1].epochs) == 4
    assert all(math.isfinite(r.best("val/log_loss")) for r in records)
    assert records[0].config.optimizer.lr == 5e-3
    assert folder.record().state == "complete"
    assert live_groups() == []
    assert "2 ranks" in " ".join(board.notes)

    again = Listener()
    run_study(wanted, again)
    assert again.epochs == []


def test_a_rank_killed_in_mid_epoch_costs_no_trial(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    board = Listener()
    first_epoch = threading.Event()
    board.on_epoch.append(first_epoch)
    killed: list[int] = []

    def kill() -> None:
        first_epoch.wait(120)
        ranks = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "RayTrainWorker" in " ".join(process.info["cmdline"] or [])
        ]
        killed.append(ranks[-1].pid)
        ranks[-1].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    folder = run_study(
        request(toy_data, tmp_path, trials=3, scheduler="none", workers_per_trial=2), board
    )
    killer.join()
    assert killed
    check_left(folder)
    assert [len(record.epochs) for _, record in folder.trials()] == [3, 3, 3]
    assert live_groups() == []


def test_another_data_set_or_space_is_refused_under_the_same_name(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    wanted = request(toy_data, tmp_path, trials=1, max_epochs=1)
    run_study(wanted, Listener())
    with pytest.raises(RecordError, match="another search space"):
        run_study(request(toy_data, tmp_path, trials=1, max_epochs=2), Listener())
    assert ray.is_initialized()


def test_ctrl_c_leaves_a_study_that_the_same_command_ends(toy_data: Path, tmp_path: Path) -> None:
    wanted = request(toy_data, tmp_path)
    command = [sys.executable, "-m", "carray", "tune", str(toy_data), "--space", wanted.space]
    command += ["--study", "s", "--runs", str(tmp_path / "runs"), "--trials", "4", "--json"]
    command += ["--scheduler", "none"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    ended = 0
    for line in process.stdout:
        ended += '"trial_ended"' in line
        if ended == 1:
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130, rest
    folder = StudyFolder(tmp_path / "runs" / "studies" / "s")
    assert folder.record().state == "interrupted"
    finished = {r.number: r for _, r in folder.trials() if r.state.is_finished()}
    assert finished and len(finished) < 4

    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    trained = {event["trial"] for event in events if event.get("event") == "epoch_ended"}
    assert not trained & {record.name for record in finished.values()}
    assert folder.record().state == "complete"
    check_left(folder)
    assert {n: folder.trial(n).record() for n in finished} == finished
