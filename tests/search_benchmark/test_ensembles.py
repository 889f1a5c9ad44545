"""Searches simulated on recorded logits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from carray.cli import main
from carray.errors import RecordError
from carray.files import write_text
from carray.predictions.ensemble_gain import cross_fitted_loss
from carray.records import StudyFolder
from carray.search_benchmark.ensembles import (
    METHODS,
    TrialPool,
    benchmark_ensembles,
    draw_trials,
    forecasts_of,
)
from carray.search_benchmark.methods import BenchmarkRequest
from tests.search_benchmark.studies import SPACE, past_study

IMAGES, CLASSES = 120, 3


def with_logits(folder: StudyFolder) -> StudyFolder:
    """Leave logits that are the surer of the right classes the lower a trial's loss is."""
    labels = np.arange(IMAGES) % CLASSES
    folder.write_labels({"val": labels})
    for files, record in folder.trials():
        numbers = np.random.default_rng(record.number)
        logits = numbers.normal(0, 1, (IMAGES, CLASSES))
        logits[np.arange(IMAGES), labels] += 3 - 2 * record.best("val/log_loss")
        files.write_logits({"val": logits})
    return folder


def pool_of(root: Path, trials: int = 30) -> TrialPool:
    return TrialPool.of([with_logits(past_study(root, trials=trials, stop_above=9.0))])


@pytest.mark.parametrize(("sampler", "goal"), METHODS)
def test_a_search_takes_every_trial_once_and_repeats(
    tmp_path: Path, sampler: str, goal: str
) -> None:
    pool = pool_of(tmp_path)
    drawn = draw_trials(pool, sampler, goal, 0, 15)
    assert len(set(drawn)) == 15
    assert drawn == draw_trials(pool, sampler, goal, 0, 15)


def test_a_search_near_a_good_start_has_a_better_ensemble_than_random_draws(
    tmp_path: Path,
) -> None:
    folder = with_logits(past_study(tmp_path, trials=40, stop_above=9.0))
    write_text(folder.space_file, f"{SPACE}start:\n  - {{optimizer.lr: 0.01, dropout: 0.2}}\n")
    pool = TrialPool.of([folder])
    random, *_, shipped = (
        np.mean(
            [
                cross_fitted_loss(pool.probabilities[draw_trials(pool, *method, seed, 10)])
                for seed in range(12)
            ]
        )
        for method in METHODS
    )
    assert shipped < random - 0.02


def test_stopped_trials_and_too_few_make_no_pool(tmp_path: Path) -> None:
    folder = with_logits(past_study(tmp_path, trials=30, stop_above=0.0))
    with pytest.raises(RecordError, match="past: 0 complete trials with logits, a replay of"):
        TrialPool.of([folder])


def test_a_forecast_is_told_once_every_five_trials_from_the_tenth(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    told = list(forecasts_of(pool.probabilities[:25]))
    assert len(told) == 3
    assert all(deviation > 0 for _, deviation, _ in told)
    losses = [cross_fitted_loss(pool.probabilities[:done]) for done in (10, 15)]
    assert told[0][2] == losses[0] - losses[1]


def test_studies_of_one_data_set_are_one_pool(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with_logits(past_study(tmp_path, name, trials=20, stop_above=9.0))
    request = BenchmarkRequest(studies=("a", "b"), seeds=1, budget=20, runs=tmp_path)
    done = benchmark_ensembles(request)
    assert (done.pools, done.trials) == (("a, b",), (40,))
    assert [list(score.losses) for score in done.scores] == [[5, 10]] * len(METHODS)
    assert done.scores[0].less[10] == (0.0, 0.0)
    assert sum(score.shipped for score in done.scores) == 1


def test_the_command_line_prints_a_table_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_logits(past_study(tmp_path, "a", trials=32, stop_above=9.0))
    words = ["replay-lab", "a", "--ensembles", "--seeds", "1", "--runs", str(tmp_path)]
    told = printed(words, monkeypatch, capsys)
    assert "32 trials of a\n" in told
    assert "tpe-local for the ensemble *" in told
    assert "came within the deviation told" in told
    assert json.loads(printed([*words, "--json"], monkeypatch, capsys))["trials"] == [32]


def printed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return what the command line prints."""
    monkeypatch.setattr(sys, "argv", ["carray", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out
