"""The confusion matrix: counted from stored logits, drawn for few classes and for many."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from carray.data.label_parts import read_label_parts
from carray.drawing import plotting
from carray.errors import ConfigError, RecordError
from carray.records import TrialState
from carray.reports.confusion import (
    Confusion,
    _letters,
    _makes,
    draw_confusion,
    read_confusion,
    save_picture,
)
from carray.runs_folder import RunsFolder
from carray.tracking import open_tracker
from tests.tracking.stores import with_store
from tests.tracking.studies import end_trial, make_record, make_study


def confusion_of(num_classes: int, mistakes: dict[tuple[int, int], int]) -> Confusion:
    counts = np.eye(num_classes, dtype=np.int64) * 10
    for pair, count in mistakes.items():
        counts[pair] += count
    names = tuple(f"Make{place // 4} model {place}" for place in range(num_classes))
    return Confusion("study/0001", names, counts)


@pytest.fixture
def runs(tmp_path: Path) -> RunsFolder:
    """A runs folder with one ended trial of two classes, named in Korean, in a tracking store."""
    runs = with_store(tmp_path / "runs")
    folder = make_study(runs)
    record = make_record(0, 3, TrialState.COMPLETE)
    end_trial(folder, record)
    logits = {"val": np.array([[2, 0], [3, 1], [1, 0]]), "blend": np.zeros((1, 2))}
    folder.trial(0).write_logits(logits)
    tracker = open_tracker(runs)
    tracker.study_started(folder.record())
    tracker.trial_started(record)
    tracker.trial_ended(record, folder.trial(0))
    tracker.close()
    return runs


def test_makes_are_taken_for_makes() -> None:
    found = confusion_of(8, {(0, 5): 3, (0, 1): 2})
    parts = read_label_parts(found.classes, "{make} model {model}")
    by_make = found.grouped(parts, "make")
    assert by_make.classes == ("Make0", "Make1")
    assert by_make.counts.tolist() == [[42, 3], [0, 40]]
    with pytest.raises(ConfigError, match="--by 'year': class names tell make, model; --label"):
        found.grouped(parts, "year")


def test_counts_are_true_by_predicted(runs: RunsFolder) -> None:
    found = read_confusion(runs.find_trial("autumn/0000"))
    assert found.counts.tolist() == [[2, 0], [1, 0]]
    assert found.top1 == pytest.approx(2 / 3)
    assert found.shares.tolist() == [[1, 0], [1, 0]]


def test_a_picture_is_drawn_and_goes_to_the_trials_run(runs: RunsFolder) -> None:
    drawn = draw_confusion("autumn/0000", runs=runs.path)
    with Image.open(drawn.picture) as image:
        assert image.width > 1000
    assert "in the tracking store, pictures of run" in drawn.note
    run_id = drawn.note.rsplit(" ", 1)[1]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{runs.tracking_file}")
    files = [file.path for file in client.list_artifacts(run_id, "pictures")]
    assert files == ["pictures/confusion-val.png"]
    aside = draw_confusion("autumn/0000", runs=runs.path, split="blend", track=False)
    assert aside.note == ""
    assert len(client.list_artifacts(run_id, "pictures")) == 1


def test_the_command_prints_where_it_is_and_refuses_test(runs: RunsFolder, tmp_path: Path) -> None:
    from carray.cli.app import app

    arguments = ["confusion", "autumn/0000", "--runs", str(runs.path)]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "a.png"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["top1"] == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="'test' must be one of val, blend"):
        draw_confusion("autumn/0000", split="test", runs=runs.path)
    with pytest.raises(ConfigError, match=r"must be a \.png file"):
        draw_confusion("autumn/0000", out=tmp_path / "a.pdf", runs=runs.path)


def test_a_trial_that_was_judged_on_a_fold_is_told(runs: RunsFolder) -> None:
    trial = runs.find_trial("autumn/0000")
    trial.write_logits({"val": np.zeros((5, 2))})
    with pytest.raises(RecordError, match="on a fold"):
        read_confusion(trial)


@pytest.mark.parametrize("logits", [np.full((3, 2), np.nan), np.eye(3)], ids=["nan", "classes"])
def test_broken_logits_are_no_picture(runs: RunsFolder, logits: np.ndarray) -> None:
    trial = runs.find_trial("autumn/0000")
    trial.write_logits({"val": logits})
    with pytest.raises(RecordError, match="must be finite and of 2 classes"):
        read_confusion(trial)


def test_the_worst_block_holds_the_pairs_that_are_confused_most() -> None:
    found = confusion_of(30, {(3, 20): 9, (20, 3): 2, (20, 21): 5, (7, 8): 6, (1, 2): 1})
    assert found.worst_block(3) == [3, 20, 21]
    assert found.worst_block(5) == [3, 7, 8, 20, 21]
    assert found.worst_block() == [1, 2, 3, 7, 8, 20, 21]
    assert confusion_of(30, {}).worst_block() == []


@pytest.mark.parametrize("num_classes", [2, 20, 196])
def test_many_classes_make_a_picture_that_is_no_larger_than_a_screen_or_two(
    num_classes: int, tmp_path: Path
) -> None:
    wrong = {(place, (place + 1) % num_classes): 1 + place % 4 for place in range(num_classes)}
    save_picture(confusion_of(num_classes, wrong), tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert 900 < image.width <= 4000
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red = (pixels[..., 0] - pixels[..., 2] > 60).sum()
    blue = (pixels[..., 2] - pixels[..., 0] > 60).sum()
    assert red > 500, "mistakes are seen"
    assert blue > 500, "so is what is right"


def test_names_in_other_scripts_never_break_a_picture() -> None:
    fonts, names = _letters(("소나타", "Škoda", "A/B"))
    assert names[1:] == ("Škoda", "A/B")
    assert names[0] == "소나타" if len(fonts) > 1 else "class 0"
    assert _letters(("Škoda", "A/B")) == (["DejaVu Sans"], ("Škoda", "A/B"))


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    names = ("x^2 $\\frac{", "a_b$c$", "unter $10000")
    for names_shown in (names, tuple(f"{name} {at}" for at in range(20) for name in names)):
        counts = np.ones((len(names_shown), len(names_shown)), np.int64)
        save_picture(Confusion("$study", names_shown, counts), tmp_path / "c.png")
        with Image.open(tmp_path / "c.png") as image:
            assert image.width > 900


def test_a_dollar_is_drawn_and_no_setting_of_a_notebook_is_left_changed() -> None:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    with plotting():
        figure = Figure()
        wide, narrow = (figure.text(0, 0, name).get_window_extent() for name in ("$c$", "c"))
    assert wide.width > 2.5 * narrow.width
    assert rcParams["text.parse_math"]


def test_first_words_mark_where_makes_begin() -> None:
    names = ("Audi A4", "Audi_TT", "BMW M5", "BMW X6", "Ram")
    assert _makes(names) == ([0, 2, 4], ["Audi", "BMW", "Ram"])
