"""`carray tune` refuses what can't be done: one sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from carray import api
from carray.cli import main
from carray.runs_folder import RunsFolder
from carray.search import run
from carray.tracking import SubprocessTracker
from tests.reports.studies import make_study
from tests.search.studies import LocalCluster, local

__all__ = ["local"]

GOOD = """
version: 1
fixed: {epochs: 1, image_size: 32, pretrained: false, backbone: test_resnet}
search: {optimizer.lr: {loguniform: [1e-4, 1e-2]}}
"""
NOBODY = "127.0.0.1:9"  # the discard port, which nothing listens on

WRONG = {
    "a missing data folder": (["nowhere"], {}, "nowhere doesn't exist: `carray data prepare"),
    "an unknown backbone, whatever a cluster says": (
        ["--address", NOBODY],
        {"test_resnet": "test_resnt"},
        "unknown backbone 'test_resnt'; did you mean 'test_resnet",
    ),
    "an unknown tag in an override, whatever a cluster says": (
        ["--address", NOBODY, "--set", "backbone=resnet18.a1_in2k"],
        {},
        "no weights tagged 'a1_in2k'; did you mean 'resnet18.a1_in1k'?",
    ),
    "a misspelt space": (["--space", "qick"], {}, "no search space 'qick'; did you mean 'quick'?"),
    "a misspelt parameter": ([], {"optimizer.lr": "optimiser.lr"}, "did you mean 'optimizer.lr'?"),
    "a range that can't be valid": ([], {"1e-2": "11.0"}, "less than or equal to 10"),
    "an override that can't be valid": (["--set", "dropout=2"], {}, "should be less than 1"),
    "more refits than trials": (["--trials", "2", "--refit", "3"], {}, "at most --trials 2"),
    "no trials at all": (["--trials", "0"], {}, "--trials 0 must be at least 1"),
    "fewer refits than none": (["--refit", "-1"], {}, "--refit -1 must be at least 0"),
    "a refit that is no trial": (
        ["--refit", "1", "--refit-epochs", "2", "--set", "augment.mix_off_epochs=3"],
        {"epochs: 1": "epochs: 3"},
        "augment.mix_off_epochs=3 must be at most epochs=2",
    ),
    "refits no longer than trials": (
        ["--refit", "1", "--refit-epochs", "1"],
        {},
        "--refit-epochs 1: a trial has as many already",
    ),
    "a length of no refits": (["--refit-epochs", "3"], {}, "there are to be none: give --refit K"),
    "the best of no folds": (["--top-folds", "3"], {}, "there are to be none: give --folds K too"),
    "a seed that no trial can have": (["--seed", "-1"], {}, "--seed -1 must be at least 0"),
    "a trial without a rank, before a cluster is asked": (
        ["--address", NOBODY, "--workers-per-trial", "0"],
        {},
        "--workers-per-trial 0 must be at least 1",
    ),
    "no trial at once, before a cluster is asked": (
        ["--address", NOBODY, "--concurrent", "0"],
        {},
        "--lanes 0 must be at least 1",
    ),
    "a time that never ends": (["--time-budget", "nan"], {}, "--time-budget nan must be above 0"),
    "a budget that is none": (["--budget", "25 minutes"], {}, "can't be read: give a time (90s"),
    "money without a price": (["--budget", "60eur"], {}, "needs --price 2.5eur/gpuh"),
    "a price that is none": (["--price", "cheap"], {}, "'cheap' must be money for an hour"),
    "two budgets": (["--budget", "1h", "--time-budget", "5"], {}, "give one of them"),
    "a negative disk": (["--disk-budget", "-1"], {}, "--disk-budget -1.0 must be at least 0"),
    "GPUs that are not a number": (["--gpus-per-trial", "nan"], {}, "nan must be at least 0"),
    "no grace at all": (["--grace-epochs", "0"], {}, "must be at least 1"),
    "a reduction that reduces nothing": (["--reduction-factor", "1"], {}, "must be at least 2"),
    "an unknown scheduler": (["--scheduler", "ash"], {}, "did you mean 'asha'?"),
    "a study's name with a slash": (["--study", "a/b"], {}, "can't name a folder"),
    "no cluster at the address": (
        ["--address", NOBODY],
        {},
        f"no Ray cluster answers at '{NOBODY}",
    ),
    "GPUs that are no number": (["--gpus-per-trial", "many"], {}, "a number of GPUs, or auto"),
    "ranks that would share a GPU": (
        ["--gpus-per-trial", "auto", "--workers-per-trial", "2"],
        {},
        "packs trials of one rank, not of 2",
    ),
    "more GPUs than there are": (["--gpus-per-trial", "99"], {}, "99 GPU, but the cluster has"),
}
ONE = ("--trials", "1")  # one lane is on its way up meanwhile
NEEDS_RAY = ("more GPUs than there are",)


def tune(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run `carray tune` in this process; return its exit code and what it said to stderr."""
    sys.argv[:] = ["carray", "tune", *words]
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


def check_refused(runs: Path, code: int, said: str, rule: str) -> None:
    assert code == 2, said
    assert rule in said
    assert len(said.splitlines()) == 1, said
    assert not (runs / "studies").exists() or list((runs / "studies").iterdir()) == []


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=pytest.mark.ray if what in NEEDS_RAY else ()) for what in WRONG],
)
def test_a_wrong_wish_is_refused_in_one_sentence(
    what: str, capsys: pytest.CaptureFixture[str], toy_data: Path, tmp_path: Path
) -> None:
    words, changes, rule = WRONG[what]
    runs, space = tmp_path / "runs", tmp_path / "space.yaml"
    space.write_text(changed(GOOD, changes))
    data = words.pop(0) if words and not words[0].startswith("-") else str(toy_data)
    code, said = tune(capsys, data, "--space", str(space), "--runs", str(runs), *words)
    check_refused(runs, code, said, rule)


def changed(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(("epochs", "code"), [(0, 1), (1, 0)])
def test_a_study_of_which_no_trial_got_through_an_epoch_ends_with_1(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    toy_data: Path,
    tmp_path: Path,
    epochs: int,
    code: int,
) -> None:
    folder = make_study(tmp_path, trials=1, refits=0)
    record = folder.trial(0).record()
    record = record.model_copy(update={"epochs": record.epochs[:epochs]})
    folder.trial(0).write_record(record)
    done = api.Study(folder, RunsFolder.at(tmp_path))
    monkeypatch.setattr(api, "run_request", lambda *words, **options: done)
    assert tune(capsys, str(toy_data))[0] == code


@pytest.mark.filterwarnings("ignore")
def test_a_tracking_server_that_does_not_answer_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    local: LocalCluster,
    toy_data: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(run, "SubprocessTracker", SubprocessTracker)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{NOBODY}")
    space = tmp_path / "space.yaml"
    space.write_text(GOOD)
    runs = tmp_path / "runs"
    code, said = tune(capsys, str(toy_data), "--space", str(space), "--runs", str(runs), *ONE)
    check_refused(runs, code, said, f"the tracking store http://{NOBODY} doesn't answer")


@pytest.mark.ray
def test_weights_that_do_not_fit_the_backbone_are_refused(toy_data: Path, tmp_path: Path) -> None:
    """In a process of its own, which ends at once where a lane is still on its way up."""
    import timm
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), file)
    space = tmp_path / "space.yaml"
    space.write_text(GOOD.replace("pretrained: false", f"pretrained: {file}"))
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "carray", "tune", str(toy_data), "--space", str(space)]
    command += ["--runs", str(runs), *ONE]
    piped = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=piped)
    check_refused(runs, ended.returncode, ended.stderr, "don't fit backbone 'test_resnet'")
