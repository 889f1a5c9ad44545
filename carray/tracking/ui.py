"""MLflow's own screens on the loopback interface, over the right store."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from carray.errors import TrackingError
from carray.masking import masked
from carray.ports import check_port
from carray.runs_folder import RunsFolder
from carray.tracking.comparison import write_comparison
from carray.tracking.mlflow_client import is_default, store_of, tracking_uri

HOST = "127.0.0.1"

_logger = logging.getLogger(__name__)


def open_ui(runs: RunsFolder, port: int, browser: bool = False) -> None:
    """Become MLflow's server on the store under `runs`; log where. Doesn't return.

    Once it answers, the page of the newest study's trials is said, and opened in the `browser`.

    Where `$MLFLOW_TRACKING_URI` names a server, its address is logged and nothing is started.

    Raises:
        ConfigError: the port is none, or can't be listened on.
        TrackingError: there is no store yet.
    """
    uri = tracking_uri(runs)
    if uri.startswith(("http://", "https://")):
        page = f"{masked(uri)}/{_page(runs)}".rstrip("/")
        _logger.info(f"MLFLOW_TRACKING_URI names a server: open {page}")
        return
    if is_default(runs) and not runs.tracking_file.exists():
        raise TrackingError(
            f"there is no tracking store at {runs.tracking_file}; run a study first"
        )
    check_port(HOST, port)
    _logger.info(f"MLflow starts on http://{HOST}:{port}  (store {masked(uri)}; Ctrl-C ends it)")
    _open_when_up(runs, f"http://{HOST}:{port}", browser)
    sys.stdout.flush()
    command = ui_command(runs, port)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # five processes more
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.execv(command[0], command)


def _open_when_up(runs: RunsFolder, address: str, browser: bool) -> None:
    """Start what waits for the server, beside it."""
    words = [sys.executable, "-m", "carray.tracking.open_page", address, _page(runs)]
    subprocess.Popen([*words, *(["browser"] if browser else [])])


def _page(runs: RunsFolder) -> str:
    """Return the page of the newest study's trials; "" where there is none to show."""
    try:
        study = runs.find_study()
        with store_of(runs) as client:
            found = client.get_experiment_by_name(study.record().name)
            return write_comparison(client, found.experiment_id, study) if found else ""
    except Exception:  # no study, or a store that the server itself will tell of
        return ""


def ui_command(runs: RunsFolder, port: int) -> list[str]:
    """Return the command line of MLflow's server."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--uvicorn-opts", "--log-level warning"]  # requests would scroll the page away
    command += ["--backend-store-uri", tracking_uri(runs), "--workers", "1"]
    if is_default(runs):
        command += ["--default-artifact-root", runs.tracking_artifacts.as_uri()]
    return command
