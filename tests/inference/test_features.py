"""Features: what a backbone sees, in files that other tools read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from carray.cli.app import app
from carray.errors import ConfigError, DataError
from carray.inference.features import export_features
from carray.inference.predictor import load_model
from carray.predictions.logits import log_softmax
from tests.trained import Trained


def test_both_files_hold_the_same_and_the_head_turns_them_into_the_trials_logits(
    trained: Trained, tmp_path: Path
) -> None:
    done = export_features("single/0000", trained.data, tmp_path / "f", runs=trained.runs)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as arrays:
        features, splits = arrays["features"], arrays["splits"]
        assert arrays["classes"].tolist() == list(trained.manifest.classes)
        labels = arrays["labels"]
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert features.shape == (done.images, done.width)
    assert np.array_equal(table.filter(regex=r"^f\d+$").to_numpy(np.float32), features)
    assert np.array_equal(table["class_index"], labels)
    head = load_model(trained.runs / "models" / "single-0000").members[0].classifier.head
    with torch.inference_mode():
        said = head(torch.from_numpy(features[splits == "test"])).numpy()
    left = trained.study.trial(0).logits("test")
    assert np.allclose(log_softmax(said), log_softmax(left), atol=0.05)


def test_other_data_and_one_file_are_fine(trained: Trained, toy_data: Path, tmp_path: Path) -> None:
    words = ["features", "single/0000", str(toy_data), "--out", str(tmp_path / "f.parquet")]
    done = CliRunner().invoke(app, [*words, "--runs", str(trained.runs)])
    assert done.exit_code == 0, done.output
    assert [file.name for file in tmp_path.iterdir()] == ["f.parquet"]


def test_wrong_endings_and_folders_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.npz or \.parquet"):
        export_features("single/0000", trained.data, tmp_path / "f.csv", runs=trained.runs)
    with pytest.raises(DataError):
        export_features("single/0000", tmp_path, tmp_path / "f", runs=trained.runs)
    assert not list(tmp_path.iterdir())
