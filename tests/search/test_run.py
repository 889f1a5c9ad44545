"""Whole studies on a real Ray: every trial ends and leaves what it must, whatever happens."""

from __future__ import annotations

import io
import math
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import optuna
import psutil
import pytest
from ray.util import placement_group_table
from safetensors.torch import save_file

from carray.config import build_config
from carray.ensemble.build import build_ensemble
from carray.errors import RecordError
from carray.lanes.lane import LaneShape
from carray.lanes.memory_guard import MemoryLimit
from carray.models.backbones import build_backbone
from carray.models.weights import weights_hash
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.search import session
from carray.search.observers.console import Board
from carray.search.request import StudyRequest
from carray.search.run import run_study
from tests.opened import stored_trials
from tests.processes import words_of

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

MIB = 2**20
FIXED = "{epochs: 3, image_size: 32, pretrained: false, backbone: test_resnet}"
SPACE = f"""
version: 1
metric: val/log_loss
direction: minimize
fixed: {FIXED}
search:
  optimizer.lr: {{loguniform: [1e-4, 3e-2]}}
start:
  - {{optimizer.lr: 5e-3}}
"""
# the third point's batch needs 110 MiB as images, and its mapped pixels 82 MiB
TWELVE = f"""
version: 1
grace_epochs: 1
fixed: {FIXED.replace("image_size: 32, ", "device_batch_size: 64, ")}
search:
  image_size: {{choice: [32, 384]}}
  optimizer.lr: {{loguniform: [1e-4, 3e-2]}}
start:
""" + "".join(
    f"  - {{image_size: {384 if n == 2 else 32}, optimizer.lr: {n + 1}e-3}}\n" for n in range(12)
)

COLLAPSING = f"""
version: 1
fixed: {FIXED.replace("epochs: 3", "epochs: 4, device_batch_size: 16")}
search:
  optimizer.lr: {{loguniform: [1e-4, 1.0]}}
start:
""" + "".join(f"  - {{optimizer.lr: {lr}}}\n" for lr in (1.0, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3))


class Listener(Board):
    """A board that keeps its notes, and does something after an epoch of this call."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.epochs: list[TrialRecord] = []
        self.notes: list[str] = []
        self.after: dict[int, Callable[[], object]] = {}

    def epoch_ended(self, record: TrialRecord) -> None:
        super().epoch_ended(record)
        self.epochs.append(record)
        self.after.get(len(self.epochs), int)()

    def note(self, text: str) -> None:
        self.notes.append(text)


def request(data: Path, folder: Path, text: str = SPACE, **options: object) -> StudyRequest:
    space = folder / "space.yaml"
    space.write_text(text)
    settings = {"trials": 4, "name": "s", "runs": str(folder / "runs"), **options}
    return StudyRequest(data=data, space=str(space), **settings)  # type: ignore[arg-type]


def stored_weights(folder: Path) -> Path:
    """Write weights for the space's backbone, in a folder of their own."""
    file = folder / "weights" / "test_resnet.safetensors"
    file.parent.mkdir()
    save_file(build_backbone(build_config({"backbone": "test_resnet"})).state_dict(), file)
    return file


def live_groups() -> list[object]:
    return [g for g in placement_group_table().values() if g["state"] != "REMOVED"]


def ranks() -> list[psutil.Process]:
    """The ranks of the lanes that this process has started."""
    below = psutil.Process().children(recursive=True)
    return [each for each in below if "RayTrainWorker" in " ".join(words_of(each))]


def kill_a_rank_in_mid_epoch() -> None:
    threading.Timer(0.1, ranks()[-1].kill).start()


def told_to_optuna(folder: StudyFolder) -> list[optuna.trial.FrozenTrial]:
    return stored_trials(folder)


def check_left(folder: StudyFolder) -> None:
    """Check that every trial has ended, with a record and logits on every held split."""
    told = {trial.number: trial.state.name for trial in told_to_optuna(folder)}
    splits = [name for name in ("val", "blend", "test") if len(folder.labels(name))]
    assert "val" in splits
    for files, record in folder.trials():
        if record.kind == "search":
            assert record.sampler_number is not None
            state = "pruned" if record.state == "infeasible" else str(record.state)
            assert told[record.sampler_number].lower() == state
        assert not files.checkpoint.exists()
        if record.state != "infeasible":
            assert record.state in (TrialState.COMPLETE, TrialState.PRUNED), record.reason
            assert math.isfinite(record.best("val/log_loss"))
            for split in splits:
                assert files.logits(split).shape == (len(folder.labels(split)), 12)
    assert folder.record().state == "complete"


def check_waits(notes: Sequence[str]) -> None:
    """Check what the study said of its lanes: under half a second between two trials."""
    (said,) = [note for note in notes if note.startswith("lanes waited")]
    assert float(said.split()[2]) < 0.5, said


def test_one_rank_a_trial_with_one_killed_and_a_refit_on_both_lanes(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    text, weights = SPACE.replace("pretrained: false", "pretrained: true"), stored_weights(tmp_path)
    options = {"trials": 5, "weights": weights.parent}
    wanted = request(toy_data, tmp_path, text, refit=1, refit_epochs=4, **options)
    board, meanwhile = Listener(), []

    def start_it_twice() -> None:
        with pytest.raises(RecordError, match="is being run by another process") as refused:
            run_study(wanted, Listener())
        meanwhile.append(refused)

    board.after = {1: start_it_twice, 2: kill_a_rank_in_mid_epoch}
    folder = run_study(wanted, board)
    check_left(folder)
    check_waits(board.notes)
    records = folder.records()
    assert [record.kind for record in records] == ["search"] * 5 + ["refit"]
    assert len(records[-1].epochs) == 4
    assert {each.initialisation for each in records} == {f"test_resnet:{weights_hash(weights)}"}
    assert "CARRAY_WEIGHTS" not in os.environ, "lanes were told by the study itself"
    assert records[0].config.optimizer.lr == 5e-3
    assert "refit: the best 1 again, 4 epochs, on 1 lane of 2 ranks (DDP)" in board.notes
    assert sum("lost a rank and is back" in note for note in board.notes) == 1
    assert len(meanwhile) == 1
    assert live_groups() == []

    again = Listener()
    run_study(wanted, again)
    assert again.epochs == []
    with pytest.raises(RecordError, match="another search space"):
        run_study(request(toy_data, tmp_path, text, max_epochs=2, **options), Listener())


def test_two_ranks_a_trial_of_which_one_lacks_memory_and_is_killed(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    wanted = request(toy_data, tmp_path, TWELVE, trials=12, workers_per_trial=2)
    board, poor = Listener(), []

    def take_memory() -> None:
        poor.append(ranks()[-1])
        limit = poor[0].memory_info().vms + 150 * MIB
        poor[0].rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    board.after = {1: take_memory, 8: lambda: threading.Timer(0.1, poor[0].kill).start()}
    folder = run_study(wanted, board)
    check_left(folder)
    check_waits(board.notes)
    records = folder.records()
    assert len(records) == 12
    (infeasible,) = [record for record in records if record.state == "infeasible"]
    assert infeasible.config.image_size == 384
    assert "out of memory" in infeasible.reason
    assert any(record.state == "pruned" for record in records)
    assert sum("lost a rank and is back" in note for note in board.notes) == 1
    told = told_to_optuna(folder)[infeasible.sampler_number or 0]
    assert told.constraints == {"out of memory": 1.0}
    assert live_groups() == []


def test_a_collapsed_trial_and_a_lane_that_is_started_anew_cost_the_others_nothing(
    ray_instance: None, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any memory at all is growth here, so the lane's two ranks go after the fourth trial."""
    everything = MemoryLimit(gib=-1.0, share=-1.0)
    monkeypatch.setattr(session, "LaneShape", partial(LaneShape, allowed_growth=everything))
    options = {"trials": 6, "workers_per_trial": 2, "scheduler": "none"}
    board = Listener()
    folder = run_study(request(toy_data, tmp_path, COLLAPSING, **options), board)
    collapsed, *others = folder.records()
    assert (collapsed.state, len(collapsed.epochs)) == (TrialState.COLLAPSED, 3)
    assert "likely cause: optimizer.lr=1 is too high" in collapsed.reason
    assert [(record.state, len(record.epochs)) for record in others] == [("complete", 4)] * 5
    told = [trial.state.name for trial in told_to_optuna(folder)]
    assert told == ["PRUNED"] + ["COMPLETE"] * 5
    assert folder.record().state == "complete"
    (said,) = [note for note in board.notes if "lane 0" in note]
    assert re.fullmatch(
        r"lane 0 grew from \d\.\d\d to \d\.\d\d GiB in 4 trials; its worker group was started "
        "anew between two trials",
        said,
    )
    assert live_groups() == []

    ensemble = build_ensemble("s", runs=tmp_path / "runs", logits_only=True, track=False)
    assert "left out: 1 trial that collapsed" in ensemble.notes
    assert collapsed.name not in [member.trial for member in ensemble.members]


def begun(wanted: StudyRequest) -> subprocess.Popen[str]:
    """Start the study in a process group of its own; return once a trial has ended."""
    command = [sys.executable, "-m", "carray", "tune", str(wanted.data), "--space", wanted.space]
    command += ["--study", "s", "--runs", str(wanted.runs), "--trials", "4", "--json"]
    command += ["--scheduler", "none", "--refit", "1", "--refit-epochs", "4"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"trial_ended"' in line:
            break
    return process


def test_a_signal_that_ends_ray_too_does_not_hang(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    """As Slurm and `timeout` send it, to every process of the job."""
    process = begun(request(toy_data, tmp_path))
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    rest = process.communicate(timeout=45)[0]  # Ray itself gives up after 60 seconds
    assert process.returncode == 130, rest
    assert re.search(r"SIGTERM: .*; the same command goes on from here", rest.splitlines()[-1])
    assert psutil.wait_procs(below, timeout=20)[1] == []


def test_ctrl_c_leaves_nothing_running_and_the_next_call_ends_the_study(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    """Another Ray, the fixture's, runs on this machine all the time."""
    wanted = request(toy_data, tmp_path, scheduler="none", refit=1, refit_epochs=4)
    process = begun(wanted)
    below = psutil.Process(process.pid).children(recursive=True)
    assert any("RayTrainWorker" in " ".join(words_of(each)) for each in below)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "SIGINT: ended; the same command goes on from here" in rest.splitlines()[-1]
    assert psutil.wait_procs(below, timeout=20)[1] == []
    folder = StudyFolder(tmp_path / "runs" / "studies" / "s")
    assert folder.record().state == "interrupted"
    assert {record.kind for record in folder.records()} == {"search"}, "refits come after"
    finished = {r.number: r for _, r in folder.trials() if r.state.is_finished()}
    assert finished and len(finished) < 4

    again = Listener()
    run_study(wanted, again)
    assert not {record.number for record in again.epochs} & set(finished)
    check_left(folder)
    assert {n: folder.trial(n).record() for n in finished} == finished
