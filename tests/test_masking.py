"""No secret in what carray says or keeps: planted in every kind of input, then looked for."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from carray.cli import main
from carray.errors import RecordError, TrackingError
from carray.masking import MASK, is_secret_name, masked
from carray.runs_folder import RunsFolder
from carray.search.observers.console import Board
from carray.search.run import run_study
from carray.tracking import open_tracker
from tests.search.studies import Listener, LocalCluster, local, local_tune, request
from tests.tracking.stores import with_store

__all__ = ["local", "local_tune"]

PLANTED = "zebra/plan+ted.77"  # what secret keys look like: signs that mean something in an URL
QUOTED = "zebra%2Fplan%2Bted.77"
WITH_SECRET = [
    f"postgresql://carray:{PLANTED}@db:5432/optuna can't be opened",
    f"s3://AKIAABCDEFGHIJKLMNOP:{PLANTED}@bucket/runs",
    f"--storage=postgresql+psycopg2://me:{QUOTED}@db/x --trials 3",
    f"connection to db failed: password={PLANTED} host=db",
    f"https://b.example/key?X-Amz-Signature={QUOTED}&X-Amz-Credential={QUOTED}",
    f"carray tune cars --env AWS_SECRET_ACCESS_KEY={PLANTED} --env HF_TOKEN={PLANTED}",
    f"{{'Authorization': 'Bearer {PLANTED}'}}",
]
HARMLESS = [
    "there is no study 's' under /runs; did you mean 't'?",
    "the tracking store http://tracking:5000 doesn't answer",
    "PWD=/runs carray tune cars",
    "Basic augmentation, a token a class, user@host",
    "carray tune cars --space quick --set optimizer.lr=3e-4",
    "the weights resnet18.a1_in1k:4f3c0a9e have 11689512 parameters",
]


@pytest.mark.parametrize("text", WITH_SECRET)
def test_a_secret_is_known_by_where_it_stands(text: str) -> None:
    assert "zebra" not in masked(text)
    assert MASK in masked(text)
    assert "AKIA" not in masked(text)
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_a_secret_of_the_environment_is_known_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
    assert masked(f"the server said: bad key {PLANTED}") == f"the server said: bad key {MASK}"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "cars")
    assert masked("cars are cars") == "cars are cars", "so short a value is a common word"
    monkeypatch.setenv("CARRAY_STORAGE", f"postgresql://me:{QUOTED}@db/x")
    assert masked(f"psycopg2: {PLANTED} or {QUOTED}") == f"psycopg2: {MASK} or {MASK}"


def test_names_of_secrets() -> None:
    secret = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "PGPASSWORD", "MYSQL_PWD"]
    assert all(map(is_secret_name, secret))
    assert not any(
        map(is_secret_name, ["PWD", "AWS_REGION", "TOKENIZERS_PARALLELISM", "RAY_TOKEN_PATH"])
    )


def test_no_sentence_of_an_error_has_one() -> None:
    error = RecordError(f"postgresql://me:{PLANTED}@db/x lacks 3 trials")
    assert str(error) == f"{error}" == f"postgresql://me:{MASK}@db/x lacks 3 trials"


def planted_in(folder: Path) -> list[Path]:
    secret = PLANTED.encode()
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if secret in file.read_bytes()]


@pytest.mark.filterwarnings("ignore")
def test_a_study_writes_and_says_none(
    local: LocalCluster,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    logging.getLogger("carray").setLevel(logging.INFO)
    told = io.StringIO()
    board = Listener()
    asked = request(
        toy_data,
        tmp_path,
        trials=1,
        max_epochs=1,
        command=f"carray tune cars --storage postgresql://me:{PLANTED}@db/x",
    )
    folder = run_study(asked, board)
    Board(told).note(f"the hub refused {PLANTED}")
    assert MASK in folder.record().command
    runs = with_store(tmp_path / "sent")
    tracker = open_tracker(runs)
    tracker.study_started(folder.record(), (folder.space_file,))
    for files, record in folder.trials():
        tracker.trial_ended(record, files)
    tracker.close()
    assert planted_in(tmp_path) == []
    said = told.getvalue() + "".join(board.notes) + caplog.text + "".join(capfd.readouterr())
    assert MASK in said
    assert PLANTED not in said


def test_a_tracking_server_that_can_t_be_reached_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{QUOTED}@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"http://me:\*\*\*@127.0.0.1:9 doesn't") as refused:
        open_tracker(RunsFolder(tmp_path))
    assert "zebra" not in str(refused.value)


def test_a_storage_that_can_t_be_reached_is_refused_without_its_password(
    local: LocalCluster, toy_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = request(toy_data, tmp_path, trials=1)
    storage = f"postgresql://me:{PLANTED}@127.0.0.1:9/x"
    words = ["tune", str(toy_data), "--space", str(asked.space), "--runs", str(asked.runs)]
    with pytest.raises(SystemExit):
        main([*words, "--storage", storage])
    said = "".join(capfd.readouterr())
    assert "storage" in said
    assert "zebra" not in said
    assert planted_in(tmp_path) == []
