"""A study at a URL: any moment of it is one that another machine can go on from."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from carray.ensemble.build import build_ensemble
from carray.errors import RecordError, StorageError, UploadError
from carray.inference.inputs import find_package
from carray.records import StudyFolder, StudyRecord, TrialFolder
from carray.remote_studies import fetched_weights, has_weights
from carray.runs_folder import RunsFolder
from carray.search import run
from carray.search.observers.mirror import link_folder
from carray.search.request import StudyRequest
from carray.search.run import run_study
from carray.storage import lease, mirror, uploads
from carray.storage.remote import RemoteFolder
from tests.search.studies import (
    Listener,
    LocalCluster,
    LocalTracker,
    check_left,
    local,
    local_tune,
    request,
)

__all__ = ["local", "local_tune"]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lease, "LOST_SECONDS", 0.5)
    monkeypatch.setattr(mirror, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(uploads, "RETRY_SECONDS", (0.02,))
    monkeypatch.setattr(uploads, "FAILING_SECONDS", 0.3)
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "machine-a"))


def asked(data: Path, folder: Path, url: str, **options: object) -> StudyRequest:
    return request(data, folder, runs=url, **options)


def files_of(folder: Path) -> set[str]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix() for file in found}


def epochs_at(there: Path) -> int:
    """Return how many epochs the records at a URL hold."""
    trials = (there / "studies" / "s" / "trials").glob("*/record.json")
    return sum(len(TrialFolder(file.parent).record().epochs) for file in trials)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_moment_of_a_study_is_enough_for_another_machine(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "bucket"
    frozen: dict[Path, int] = {}
    board = Listener()

    def freeze() -> None:
        """Keep the URL as it is once the epoch before is there: what a machine that dies leaves."""
        epochs = len(board.epochs)
        wait_for(lambda: epochs_at(there) >= epochs - 1)
        moment = tmp_path / f"moment-{len(frozen)}"
        shutil.copytree(there, moment, ignore=shutil.ignore_patterns("*.part"))
        frozen[moment] = epochs

    board.after = {2: freeze, 4: freeze}
    options = {"trials": 3, "concurrent": 1}
    folder = run_study(asked(toy_data, tmp_path, there.as_uri(), **options), board)
    check_left(folder)
    study = "studies/s"
    left = {f"{study}/{name}" for name in ("study.json", "space.yaml", "labels.npz", "optuna.db")}
    names = ("record.json", "logits.npz", "best.safetensors", "checkpoint.tar")
    left |= {f"{study}/trials/{number:04d}/{name}" for number in range(3) for name in names}
    assert files_of(there) == left | {f"{study}/driver.json"}

    assert len(frozen) == 2
    for moment, epochs in frozen.items():
        monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / f"cache-{moment.name}"))
        stray = moment / study / "trials" / "0009" / "best.safetensors"  # its record never came
        stray.parent.mkdir()
        stray.touch()
        again = Listener()
        resumed = run_study(asked(toy_data, tmp_path, moment.as_uri(), **options), again)
        check_left(resumed)
        assert not (stray.exists() or resumed.trial(9).path.exists())
        assert resumed.records()[0].params == folder.records()[0].params
        assert len(again.epochs) <= 9 - (epochs - 1), "at most an epoch is trained again"


def test_what_a_budget_stopped_goes_on_elsewhere_and_may_be_left_there_again(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, moment, board = tmp_path / "bucket", tmp_path / "moment", Listener()
    options = {"trials": 2, "concurrent": 1}
    stopped = asked(toy_data, tmp_path, there.as_uri(), time_budget_seconds=1e-6, **options)
    (record,) = run_study(stopped, Listener()).records()
    assert record.stopped_by_budget

    def freeze() -> None:
        begun = TrialFolder(there / "studies" / "s" / "trials" / "0000")
        wait_for(lambda: not begun.record().state.is_finished())
        shutil.copytree(there, moment, ignore=shutil.ignore_patterns("*.part"))

    board.after = {2: freeze}
    for url in (there, moment):
        monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / f"cache-of-{url.name}"))
        folder = run_study(asked(toy_data, tmp_path, url.as_uri(), **options), board)
        check_left(folder)
        assert [record.state for record in folder.records()] == ["complete"] * 2


def test_a_study_is_at_its_url_before_a_tracking_store_hears_of_it(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store finds the study's run by its start: begun anew elsewhere, all runs came twice."""
    there, heard = tmp_path / "bucket", []

    class Listening(LocalTracker):
        def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
            heard.append((study.started_at, StudyFolder(there / "studies" / "s").record()))

    monkeypatch.setattr(run, "SubprocessTracker", Listening)
    run_study(asked(toy_data, tmp_path, there.as_uri(), trials=1), Listener())
    started_at, at_url = heard[0]
    assert at_url.started_at == started_at


def test_trials_that_ended_while_the_url_was_away_are_known_to_it_before_their_weights_are(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver lost then loses weights: no number, no parameters, and so no run in MLflow."""
    there, moment = tmp_path / "bucket", tmp_path / "moment"
    board, refused = Listener(), [""]
    written = RemoteFolder._written

    @contextmanager
    def refuse(self: RemoteFolder, name: str) -> Iterator[Any]:
        if any(word in name for word in refused):
            raise StorageError("the store is away")
        with written(self, name) as stream:
            yield stream

    def go_away() -> None:
        refused[:] = [""]

    def come_back() -> None:
        """Take what is small; then the driver's machine is lost."""
        refused[:] = ["safetensors"]
        wait_for(lambda: epochs_at(there) >= 7)
        shutil.copytree(there, moment, ignore=shutil.ignore_patterns("*.part"))
        refused.clear()

    refused.clear()
    monkeypatch.setattr(RemoteFolder, "_written", refuse)
    board.after = {1: go_away, 8: come_back}
    options = {"trials": 3, "concurrent": 1}
    folder = run_study(asked(toy_data, tmp_path, there.as_uri(), **options), board)
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "machine-b"))
    resumed = run_study(asked(toy_data, tmp_path, moment.as_uri(), **options), Listener())
    check_left(resumed)
    assert all(trial.weights_file.exists() for trial, _ in resumed.trials())
    first, then = folder.records(), resumed.records()
    assert [each.started_at for each in then[:2]] == [each.started_at for each in first[:2]]
    assert [each.params for each in then[:2]] == [each.params for each in first[:2]]


def test_another_machine_gets_records_and_logits_and_weights_when_it_needs_them(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (tmp_path / "bucket").as_uri()
    run_study(asked(toy_data, tmp_path, url, trials=3), Listener())
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "machine-b"))
    runs = RunsFolder.at(url)
    assert [folder.path.name for folder in runs.studies()] == ["s"]
    assert not any(name.endswith("npz") for name in files_of(runs.path)), "a list needs none"
    here = runs.find_study()
    assert not any(name.endswith((".safetensors", ".db")) for name in files_of(runs.path))
    assert all(has_weights(trial) for trial, _ in here.trials())
    made = build_ensemble("s", top=2, runs=url, logits_only=True, track=False)
    assert f"studies/s/ensembles/{made.name}.json" in files_of(tmp_path / "bucket")
    assert "openings" in {name.partition("/")[0] for name in files_of(tmp_path / "bucket")}
    (trial, _), *_ = here.trials()
    assert fetched_weights(trial).read_bytes() == b"weights"
    with pytest.raises(RecordError, match=f"there is no study 'nix' under {url}"):
        runs.find_study("nix")
    with pytest.raises(RecordError, match="there is no model 'nix'"):
        find_package(runs, "nix")


def test_two_machines_don_t_run_one_study_and_who_is_succeeded_keeps_its_own(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (tmp_path / "bucket").as_uri()
    wanted = asked(toy_data, tmp_path, url, trials=2, concurrent=1)
    refused = []
    board = Listener()

    def start_it_elsewhere() -> None:
        monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "machine-b"))
        with pytest.raises(RecordError, match=r"is being run by .*; wait for it") as error:
            run_study(wanted, Listener())
        refused.append(error)
        monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "machine-a"))

    board.after = {2: start_it_elsewhere}
    first = run_study(wanted, board)
    assert len(refused) == 1
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "machine-b"))
    more = asked(toy_data, tmp_path, url, trials=3, concurrent=1)
    check_left(run_study(more, Listener()))
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "machine-a"))
    seen = RunsFolder.at(url).find_study("s")
    assert seen.path == first.path
    assert len(seen.records()) == 3, "machine a sees what machine b has added"
    (aside,) = (seen.path.parents[1] / "superseded").iterdir()
    assert len(StudyFolder(aside).records()) == 2


def test_a_url_that_refuses_costs_no_trial_and_the_end_says_what_is_not_there(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (tmp_path / "bucket").as_uri()
    wanted = asked(toy_data, tmp_path, url, trials=2)
    board, put = Listener(), RemoteFolder.put

    def refuse(self: RemoteFolder, file: Path, name: str, *rest: object) -> None:
        if board.epochs:
            raise StorageError("the store is away")
        put(self, file, name)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "put", refuse)
        with pytest.raises(UploadError, match=r"^file:.* lacks .*the same command carries") as told:
            run_study(wanted, board)
    assert "trials/0000" in str(told.value)
    assert "an upload failed, and is tried again: the store is away" in board.notes
    check_left(RunsFolder.at(url).study("s"))
    run_study(wanted, Listener())
    there = files_of(tmp_path / "bucket" / "studies" / "s" / "trials")
    names = ("record.json", "logits.npz", "best.safetensors", "checkpoint.tar")
    assert there == {f"{number:04d}/{name}" for number in range(2) for name in names}


def test_a_folder_is_linked_as_it_is_at_one_moment(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "0001").checkpoint
    with pytest.raises(FileNotFoundError):
        link_folder(folder, tmp_path / "aside")
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(b"1")
    link_folder(folder, tmp_path / "aside")
    shutil.rmtree(folder)
    assert (tmp_path / "aside" / "state.pt").read_bytes() == b"1"
