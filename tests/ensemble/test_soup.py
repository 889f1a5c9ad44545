"""Weights of trials averaged into one model: what joins, what is parted, what is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from carray.ensemble.build import build_ensemble
from carray.ensemble.soup import make_soup
from carray.ensemble.soup_weights import average_states
from carray.errors import RecordError
from carray.export.graph import ModelGraph
from carray.export.photographs import held_photographs
from carray.inference.predictor import load_model
from carray.predictions.logits import log_softmax
from carray.reports.soup import soup_lines
from carray.runs_folder import RunsFolder
from carray.training.train import train
from tests.trained import RECIPE, Trained


@pytest.fixture(scope="module")
def kin(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trials that go on from one trial's weights, as fine-tunings do."""
    runs = tmp_path_factory.mktemp("kin") / "runs"
    begun = str(trained.study.trial(0).weights_file)
    for seed in range(2):
        own = {**RECIPE, "epochs": 1, "seed": seed, "pretrained": begun}
        train(trained.data, own, runs=runs, study="kin")
    return replace(trained, runs=runs)


def test_an_average_of_weights_is_taken_name_by_name() -> None:
    first = {"w": torch.tensor([1.0, 2.0]), "seen": torch.tensor(5)}
    second = {"w": torch.tensor([3.0, 6.0]), "seen": torch.tensor(9)}
    found = average_states({0: first, 1: second}, {0: 0.25, 1: 0.75})
    assert found["w"].tolist() == [2.5, 5.0]
    assert found["seen"] == 5


def test_fine_tunings_of_one_start_make_a_soup_that_is_one_model(kin: Trained) -> None:
    made = make_soup("kin", runs=kin.runs)
    assert made.trial == "kin-soup/0000"
    assert all(barrier.is_passable for barrier in made.barriers)
    assert len(made.soup_of) >= 2
    record = RunsFolder(kin.runs).study("kin-soup").trial(0).record()
    assert record.soup_of == made.soup_of
    assert made.package is not None
    model = load_model(made.package)
    assert len(model.members) == 1
    rows = kin.manifest.rows("blend")[:8]
    files = [str(path) for path in kin.manifest.included["path"].iloc[rows]]
    left = log_softmax(RunsFolder(kin.runs).study("kin-soup").trial(0).logits("blend")[:8])
    expected = log_softmax(left / np.float32(made.temperature))
    assert np.allclose(np.log(model.predict(files)), expected, atol=2e-2)
    squares = list(held_photographs(kin.manifest).read(10**6))[:4]
    with torch.inference_mode():
        exported = [ModelGraph(model).eval()(torch.tensor(each)[None]).numpy() for each in squares]
    assert np.allclose(np.concatenate(exported), model.predict(squares), atol=0.01)
    assert len(repr(model)) < 200, "the networks aren't in it"
    single = next(row for row in made.rows if row.what == "best single trial")
    ranked = build_ensemble("kin", top=1, runs=kin.runs, track=False, name="alone")
    assert single.scores.log_loss.value == pytest.approx(ranked.rules[-1].log_loss, abs=1e-3)
    one = replace(made, soup_of=made.soup_of[:1])
    assert any(line.startswith("No average is better than kin/") for line in soup_lines(one))
    again = make_soup("kin", runs=kin.runs)
    printed = "\n".join(soup_lines(again))
    assert "> greedy soup" in printed or "> uniform soup" in printed
    assert max(map(len, printed.splitlines())) <= 100 + len(str(kin.runs))
    assert f"  carray ensemble kin-soup --top 1 --runs {kin.runs}" in printed.splitlines()
    assert (again.trial, again.package) == (made.trial, made.package), "the same soup is one trial"


def test_trials_from_different_first_weights_are_no_soup(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.runs / "studies", tmp_path / "studies")
    with pytest.raises(RecordError, match=r"no two complete trials .* share backbone, head") as why:
        make_soup("single", runs=tmp_path)
    assert "search with pretrained ones" in str(why.value)
    study = RunsFolder(tmp_path).study("single")
    for folder, record in list(study.trials()):
        folder.write_record(record.model_copy(update={"initialisation": "alike"}))
    with pytest.raises(
        RecordError, match=r"a barrier parts single/000\d .* 0\.\d{3}\), and at most"
    ):
        make_soup("single", runs=tmp_path)
    assert not (tmp_path / "models").exists()
