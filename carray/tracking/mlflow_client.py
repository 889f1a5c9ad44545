"""Connects to MLflow: resolves the URI, checks that the store answers, silences its imports."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from carray.errors import TrackingError, first_cause
from carray.extras import quieted
from carray.files import locked, sqlite_file, sqlite_url, written_aside
from carray.runs_folder import RunsFolder
from carray.tracking.moved_store import follow_move

LOCK_FILE = ".mlflow.lock"  # of the process that makes the store
CHECK_SECONDS = 5  # a server that doesn't answer one request within this is refused
CONNECTIONS = 3  # that are tried of a database; MLflow tries ten, in 102 s
PATIENCE = {  # in the middle of a study, where the writer tries again anyway
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED")  # what MLflow calls HTTP's 401 and 403
SHORT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(CHECK_SECONDS),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "PGCONNECT_TIMEOUT": str(CHECK_SECONDS),
}


def tracking_uri(runs: RunsFolder) -> str:
    """Return `$MLFLOW_TRACKING_URI`, else the sqlite store under `runs`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(runs.tracking_file)


def is_default(runs: RunsFolder) -> bool:
    """Say whether the store is the one under `runs`."""
    return tracking_uri(runs) == sqlite_url(runs.tracking_file)


def check_location(runs: RunsFolder) -> None:
    """Refuse a runs folder whose path MLflow would read as a URL's, and write beside it.

    Raises:
        TrackingError: it is one, with the cure.
    """
    where = runs.path.absolute()
    if is_default(runs) and (found := re.search(r"%[0-9A-Fa-f]{2}|\?", str(where))):
        raise TrackingError(
            f"MLflow can't keep runs below {where}, since it takes {found[0]} in a path for a "
            "URL's: rename that folder, or name another one with --runs or CARRAY_RUNS"
        )


def artifacts_of(runs: RunsFolder) -> Path | None:
    """Return where a new experiment's artifacts go; None lets the store choose."""
    return runs.tracking_artifacts if is_default(runs) else None


def check_server(runs: RunsFolder) -> None:
    """Make sure that the tracking store answers, within seconds; makes its schema once.

    Raises:
        TrackingError: it doesn't answer or refuses, with the address and the cure.
    """
    with store_of(runs):
        pass


def check_writable(runs: RunsFolder) -> None:
    """Refuse a store in a file that may be read and not written.

    Raises:
        TrackingError: it is one, with the cure.
    """
    uri = tracking_uri(runs)
    file = sqlite_file(uri)
    if file.is_file() and not all(os.access(each, os.W_OK) for each in (file, file.parent)):
        raise TrackingError(
            f"the tracking store {uri} may only be read: ask whoever keeps it for the right to "
            "write, or name another one in MLFLOW_TRACKING_URI"
        )


@contextmanager
def store_of(runs: RunsFolder) -> Iterator[Any]:
    """Yield an `MlflowClient` as `client_of` does; its connections are closed in the end.

    What it raises becomes a TrackingError of one sentence.
    """
    client = client_of(runs)
    try:
        with translate_mlflow_errors(tracking_uri(runs)), quiet():
            yield client
    finally:
        close_store(tracking_uri(runs))


def client_of(runs: RunsFolder) -> Any:
    """Return an `MlflowClient` of a store that has just answered; see `close_store`.

    Raises:
        TrackingError: it doesn't answer or refuses.
    """
    uri = tracking_uri(runs)
    with translate_mlflow_errors(uri), quiet(), environment(SHORT_TIMEOUTS), _few_connections(uri):
        if is_default(runs):
            check_location(runs)
            _make_store(runs)
            follow_move(runs.tracking_file, runs.tracking_artifacts)
        from mlflow import MlflowClient

        try:
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
        except BaseException:
            close_store(uri)
            raise
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    return client


def close_store(uri: str) -> None:
    """Close the connections to a database that wait for the next call.

    The library keeps them as long as the process lives, also those to a file that is no database:
    whoever moves it away, as told, would go on with what was moved.
    """
    if _is_database(uri):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if (engine := SqlAlchemyStore._engine_map.get(uri)) is not None:
            engine.dispose()


def _is_database(uri: str) -> bool:
    from mlflow.store.db.db_types import DATABASE_ENGINES

    return uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


@contextmanager
def _few_connections(uri: str) -> Iterator[None]:
    """Let MLflow give a database up that doesn't answer; it has no setting for it."""
    if not _is_database(uri):
        yield
        return
    from mlflow.store.db import utils

    before, utils.MAX_RETRY_COUNT = utils.MAX_RETRY_COUNT, CONNECTIONS
    try:
        with quieted((utils.__name__,), logging.ERROR):  # it warns of each
            yield
    finally:
        utils.MAX_RETRY_COUNT = before


def _make_store(runs: RunsFolder) -> None:
    """Make the store under `runs` where there is none, aside: its schema takes seconds.

    Who is killed meanwhile leaves none. Half a schema could never be completed.
    """
    file = runs.tracking_file
    if file.exists():
        return
    with locked(runs.path / LOCK_FILE):
        for left in runs.path.glob(f".{file.name}.*"):
            left.unlink()  # by a process that was killed
        if not file.exists():
            with written_aside(file) as aside:
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                store = SqlAlchemyStore(sqlite_url(aside), runs.tracking_artifacts.as_uri())
                store.engine.dispose()


@contextmanager
def translate_mlflow_errors(uri: str) -> Iterator[None]:
    """Turn whatever the library raises into one sentence."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:  # the library raises its own, requests', urllib3's, sqlalchemy's
        if getattr(error, "error_code", "") in REFUSALS:
            raise TrackingError(f"the tracking server {uri} {_refusal(error)}") from error
        cure = (
            "where that file is broken, move it away: a new one is made, and `carray sync` fills it"
            if sqlite_file(uri).is_file()
            else "start the server, mend MLFLOW_TRACKING_URI, or unset it to keep runs in a local "
            "file"
        )
        raise TrackingError(
            f"the tracking store {uri} doesn't answer ({first_cause(error)}); {cure}"
        ) from error


def _refusal(error: Any) -> str:
    """Say why a server lets nobody in, or not this one, and what helps."""
    named = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if error.error_code == "PERMISSION_DENIED":
        return f"doesn't let {named or 'you'} do this; ask whoever keeps it for the permission EDIT"
    if named:
        return (
            f"doesn't take the name {named!r} with its password; mend MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD"
        )
    return (
        "wants a name and a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
        "or MLFLOW_TRACKING_TOKEN"
    )


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Lay `values` over the environment for a while; what the user set is put back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def quiet() -> AbstractContextManager[None]:
    """Keep the library's own deprecations and its chatter off the screen."""
    # the import sets the level of `mlflow` itself, so what it says then has its own
    names = ("alembic", "mlflow", "mlflow.store.db.utils", "mlflow.models.signature")
    return quieted(names, logging.WARNING)
