"""Optuna's storage in a database: a server that is restarted is waited for, no password is kept."""

from __future__ import annotations

import socket

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from carray.errors import RecordError
from carray.search.sampling import storage
from carray.search.sampling.storage import Database, waited_out, without_password


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.01)


def away(driver: str) -> Exception:
    """What Optuna raises where its database can't be reached, or a file can't be written."""
    error = StorageInternalError("An exception is raised during the commit.")
    told = Exception(f"{driver}: connection refused")
    error.__cause__ = OperationalError("INSERT", {}, told)
    error.__cause__.__cause__ = told
    return error


def test_a_server_that_comes_back_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def write() -> str:
        tries.append(1)
        if len(tries) < 4:
            raise away("psycopg")
        return "written"

    assert waited_out(write, patience_seconds=10) == "written"
    assert caplog.text.count("doesn't answer, waiting for it: psycopg: connection refused") == 1


@pytest.mark.parametrize("driver", ["psycopg", "sqlite3"])
def test_one_that_stays_away_and_a_file_that_is_broken_are_told(driver: str) -> None:
    def write() -> None:
        raise away(driver)

    seconds = 0.05 if driver == "psycopg" else 1000
    with pytest.raises(RecordError, match=f"stopped answering .{driver}: connection refused"):
        waited_out(write, patience_seconds=seconds)


def test_a_server_that_takes_connections_and_says_nothing_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "CHECK_SECONDS", 2)  # libpq waits for no less
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(OperationalError, match="timeout expired"),
    ):
        Database(f"postgresql://me@127.0.0.1:{mute.getsockname()[1]}/optuna")


def test_a_record_keeps_a_storage_without_its_password() -> None:
    url = "postgresql://carray:plan%2Fted@db.example:5432/optuna?sslmode=require"
    assert without_password(url) == ("postgresql://carray@db.example:5432/optuna?sslmode=require")
    assert without_password("sqlite:////runs/optuna.db") == "sqlite:////runs/optuna.db"
    assert "planted" not in without_password("no url://me:planted@db")
