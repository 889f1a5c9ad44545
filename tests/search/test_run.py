"""Whole studies on a real Ray: every trial ends and leaves what it must, whatever happens."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest
from ray.util import placement_group_table
from safetensors.torch import save_file

from carray.config import build_config
from carray.errors import ClusterError
from carray.lanes.lane import LaneShape
from carray.lanes.memory_guard import MemoryLimit
from carray.models.backbones import build_backbone
from carray.models.weights import weights_hash
from carray.records import StudyFolder, TrialRecord
from carray.search import session
from carray.search.request import StudyRequest
from carray.search.run import run_study
from tests.opened import stored_trials
from tests.processes import words_of
from tests.search.studies import (
    FIXED,
    SPACE,
    Listener,
    LocalCluster,
    check_left,
    local,
    local_tune,
    request,
    studies_here,
)
from tests.tracking.stores import with_store

__all__ = ["local", "local_tune"]
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

MIB = 2**20
# the third point's batch needs 110 MiB as images, and its mapped pixels 82 MiB
EIGHT = f"""
version: 1
grace_epochs: 1
fixed: {FIXED.replace("image_size: 32, ", "device_batch_size: 64, ")}
search:
  image_size: {{choice: [32, 384]}}
  optimizer.lr: {{loguniform: [1e-4, 3e-2]}}
start:
""" + "".join(
    f"  - {{image_size: {384 if n == 2 else 32}, optimizer.lr: {n + 1}e-3}}\n" for n in range(8)
)


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


def check_waits(notes: Sequence[str]) -> None:
    """Check what the study said of its lanes: under half a second between two trials."""
    (said,) = [note for note in notes if note.startswith("lanes waited")]
    assert float(said.split()[2]) < 0.5, said


def test_one_rank_a_trial_with_one_killed_and_a_refit_on_both_lanes(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    text, weights = SPACE.replace("pretrained: false", "pretrained: true"), stored_weights(tmp_path)
    options = {"trials": 5, "weights": weights.parent}
    text += "refit: {image_size: 48}\n"
    with_store(tmp_path / "runs")
    wanted = request(toy_data, tmp_path, text, refit=1, refit_epochs=4, **options)
    board = Listener()
    board.after = {2: kill_a_rank_in_mid_epoch}
    folder = run_study(wanted, board)
    check_left(folder)
    check_waits(board.notes)
    records = folder.records()
    assert [record.kind for record in records] == ["search"] * 5 + ["refit"]
    assert (len(records[-1].epochs), records[-1].config.image_size) == (4, 48)
    assert {each.initialisation for each in records} == {f"test_resnet:{weights_hash(weights)}"}
    assert "CARRAY_WEIGHTS" not in os.environ, "lanes were told by the study itself"
    assert records[0].config.optimizer.lr == 5e-3
    told = "refit: the best trial again, for 4 epochs at 48 px, on 1 lane of 2 ranks (DDP)"
    assert told in board.notes
    assert sum("lost a rank and is back" in note for note in board.notes) == 1
    assert live_groups() == []


def kill_the_only(actor: str) -> None:
    below = psutil.Process().children(recursive=True)
    (found,) = [each for each in below if actor in " ".join(words_of(each))]
    found.kill()


def test_dead_helpers_are_replaced_and_a_dead_mailbox_interrupts_the_study(
    ray_instance: None, toy_data: Path, tmp_path: Path
) -> None:
    """None fails a trial. Lanes of this process bring the study to its end."""
    with_store(tmp_path / "runs")
    wanted = request(toy_data, tmp_path, trials=3, concurrent=1)
    board = Listener()
    board.after = {  # in the first trial, and in the second
        1: partial(kill_the_only, "LaneControllers"),
        2: partial(kill_the_only, "TrialHost"),
        4: partial(kill_the_only, "Mailbox"),
    }
    with pytest.raises(ClusterError, match="'s' is not done: the process that hands trials to"):
        run_study(wanted, board)
    folder = StudyFolder(tmp_path / "runs" / "studies" / "s")
    assert [record.state for record in folder.records()] == ["complete", "running"]
    assert folder.state() == "interrupted"
    assert live_groups() == []
    again = Listener()
    with studies_here(tmp_path):
        run_study(wanted, again)
    check_left(folder)
    assert len(again.epochs) in (5, 6), "what the second trial had is not trained again"


def test_two_ranks_a_trial_of_which_one_is_killed_and_one_lacks_memory(
    ray_instance: None, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any memory at all is growth here, so both ranks go after each fourth trial."""
    everything = MemoryLimit(gib=-1.0, share=-1.0)
    monkeypatch.setattr(session, "LaneShape", partial(LaneShape, allowed_growth=everything))
    with_store(tmp_path / "runs")
    wanted = request(toy_data, tmp_path, EIGHT, trials=8, workers_per_trial=2)
    board = Listener()

    def take_memory() -> None:
        poor = ranks()[-1]
        limit = poor.memory_info().vms + 150 * MIB
        poor.rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    board.after = {1: kill_a_rank_in_mid_epoch, 3: take_memory}  # both in the first trial
    folder = run_study(wanted, board)
    check_left(folder)
    check_waits(board.notes)
    records = folder.records()
    assert len(records) == 8
    (infeasible,) = [record for record in records if record.state == "infeasible"]
    assert infeasible.config.image_size == 384
    assert "out of memory" in infeasible.reason
    assert any(record.state == "pruned" for record in records)
    assert sum("lost a rank and is back" in note for note in board.notes) == 1
    grown = [note for note in board.notes if " grew from " in note]
    assert len(grown) >= 2
    for note in grown:
        assert re.fullmatch(
            r"lane 0 grew from \d\.\d\d to \d\.\d\d GiB in 4 trials; its worker group was started "
            "anew between two trials",
            note,
        )
    told = stored_trials(folder)[infeasible.sampler_number or 0]
    assert told.constraints == {"out of memory": 1.0}
    assert live_groups() == []


def begun(wanted: StudyRequest, *words: str, ended: Collection[int] = ()) -> subprocess.Popen[str]:
    """Start the study in a process group of its own; return once another trial has ended."""
    command = [sys.executable, "-m", "carray", "tune", str(wanted.data), "--space", wanted.space]
    command += ["--study", "s", "--runs", str(wanted.runs), "--trials", "6", "--json"]
    command += ["--scheduler", "none", "--refit", "1", "--refit-epochs", "4", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "trial_ended" and int(event["trial"][-4:]) not in ended:
            break
    return process


def test_a_study_is_ended_by_each_signal_and_leaves_nothing_running(
    ray_instance: None, toy_data: Path, tmp_path: Path, local: LocalCluster
) -> None:
    """Another Ray, the fixture's, runs on this machine all the time.

    Ctrl-C comes first, to a study of two lanes; then what Slurm and `timeout` send: a signal to
    every process of the job, which ends its Ray too. Lanes of this process bring the study to its
    end.
    """
    options = {"scheduler": "none", "refit": 1, "refit_epochs": 4, "trials": 6}
    with_store(tmp_path / "runs")
    wanted = request(toy_data, tmp_path, **options)
    folder = StudyFolder(tmp_path / "runs" / "studies" / "s")
    process = begun(wanted)
    below = psutil.Process(process.pid).children(recursive=True)
    assert any("RayTrainWorker" in " ".join(words_of(each)) for each in below)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "SIGINT: ended; the same command goes on from here" in rest.splitlines()[-1]
    assert psutil.wait_procs(below, timeout=20)[1] == []
    assert folder.record().state == "interrupted"
    assert {record.kind for record in folder.records()} == {"search"}, "refits come after"
    first = finished(folder)
    assert first and len(first) < 6

    process = begun(wanted, "--concurrent", "1", ended=first)
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    rest = process.communicate(timeout=45)[0]  # Ray itself gives up after 60 seconds
    assert process.returncode == 130, rest
    assert re.search(r"SIGTERM: .*; the same command goes on from here", rest.splitlines()[-1])
    assert psutil.wait_procs(below, timeout=20)[1] == []
    second = finished(folder)
    assert len(first) < len(second)
    assert {number: second[number] for number in first} == first

    again = Listener()
    run_study(wanted, again)
    assert not {record.number for record in again.epochs} & set(second)
    check_left(folder)
    assert {n: folder.trial(n).record() for n in second} == second


def finished(folder: StudyFolder) -> dict[int, TrialRecord]:
    return {r.number: r for _, r in folder.trials() if r.state.is_finished()}
