"""`carray train` and `carray replay` as a person types them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carray.cli.app import app
from carray.cli.trial import read_config
from carray.errors import ConfigError
from carray.runs_folder import RunsFolder

SETS = [
    "--set=backbone=test_resnet",
    "--set=pretrained=false",
    "--set=image_size=32",
    "--set=optimizer.lr=3e-4",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trained(runs: Path, toy_data: Path) -> str:
    """What `carray train` prints."""
    sets = [*SETS, "--set", "epochs=2"]
    result = CliRunner().invoke(app, ["train", str(toy_data), *sets, "--runs", str(runs)])
    assert result.exit_code == 0, result.output
    return result.output


def test_train_prints_a_line_an_epoch_and_what_to_type_next(trained: str) -> None:
    lines = trained.splitlines()
    assert lines[0].startswith("trial single/0000: test_resnet (")
    assert lines[1].lstrip().startswith("1/2 * loss")
    assert "left" in lines[1]
    assert lines[2].lstrip().startswith("2/2")
    assert any(line.startswith("best epoch ") for line in lines)
    assert any("carray replay single/0000" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_train_gives_its_record_as_json(runs: Path, toy_data: Path) -> None:
    command = ["train", str(toy_data), *SETS, "--set=epochs=1", "--runs", str(runs), "--json"]
    result = CliRunner().invoke(app, command)
    record = json.loads(result.stdout)
    assert record["state"] == "complete"
    assert record["config"]["optimizer"]["lr"] == 3e-4
    assert record["config"]["pretrained"] is False


@pytest.mark.usefixtures("trained")
def test_replay_compares_and_agrees(runs: Path) -> None:
    result = CliRunner().invoke(app, ["replay", "single/0000", "--runs", str(runs)])
    assert result.exit_code == 0, result.output
    assert "1 epoch again: agrees" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    as_json = CliRunner().invoke(app, ["replay", "single/0", "--runs", str(runs), "--json"])
    assert json.loads(as_json.stdout)["agrees"] is True


def test_seeds_end_with_a_line_each_their_mean_and_deviation(runs: Path, toy_data: Path) -> None:
    words = ["train", str(toy_data), *SETS, "--set=epochs=1", "--runs", str(runs)]
    words += ["--study", "seeds", "--seeds"]
    assert CliRunner().invoke(app, [*words, "2"]).exit_code == 0
    done = CliRunner().invoke(app, [*words, "3"])
    assert done.exit_code == 0, done.output
    study = RunsFolder(runs).study("seeds")
    records = study.records()
    assert [record.config.seed for record in records] == [0, 1, 2], (
        "those there aren't trained again"
    )
    assert len({record.best("val/log_loss") for record in records}) == 3
    lines = [line.split() for line in done.stdout.splitlines()]
    for record in records:
        assert [record.name, str(record.config.seed), "1/1"] in [line[:3] for line in lines]
    losses = [record.best("val/log_loss") for record in records]
    assert ["mean", f"{statistics.mean(losses):.4f}"] in [line[:2] for line in lines]
    assert ["standard", "deviation", f"{statistics.stdev(losses):.4f}"] in [
        line[:3] for line in lines
    ]
    assert "next: carray ensemble --top 3 --study seeds" in done.stdout


def test_folds_and_seeds_are_not_had_at_once(toy_data: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(toy_data), "--folds", "2", "--seeds", "3"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "--folds 2 and --seeds 3 don't go together: leave one out"


def test_a_failed_trial_ends_with_its_reason_and_exit_code_1(
    tmp_path: Path, toy_data: Path
) -> None:
    wild = ["--set=optimizer.name=sgd", "--set=optimizer.lr=10", "--set=optimizer.weight_decay=1"]
    command = [
        "train",
        str(toy_data),
        *SETS[:3],
        *wild,
        "--set=device_batch_size=4",
        "--runs",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "trial single/0000 failed: " in result.output
    assert "loss is nan" in result.output


def test_a_configuration_file_may_be_dotted_or_nested(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("epochs: 3\noptimizer.lr: 3e-4\naugment:\n  strength: 0.5\n  flip: false\n")
    assert read_config(file) == {
        "epochs": 3,
        "optimizer.lr": 3e-4,
        "augment.strength": 0.5,
        "augment.flip": False,
    }


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n"])
def test_a_configuration_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        read_config(file)


@pytest.mark.parametrize("command", ["train", "replay"])
def test_help_teaches_with_examples(command: str) -> None:
    assert "Examples:" in CliRunner().invoke(app, [command, "--help"]).stdout


def test_what_a_classical_head_takes_from_its_trial_cannot_be_asked_for(toy_data: Path) -> None:
    words = ["--classifier", "knn", "--features-of", "a/0", "--study", "rf", "--folds", "2"]
    result = CliRunner().invoke(app, ["train", str(toy_data), *words])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).endswith("leave out --study, --folds")
