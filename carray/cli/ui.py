"""`carray ui` and `carray sync`: MLflow's own screens, and records sent to it again."""

from __future__ import annotations

from typing import Annotated

import typer

from carray.cli.log import log_on_stdout
from carray.cli.shared import JsonOption, RunsOption, StudyOption, emit
from carray.errors import counted


def ui(
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 5000,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = False,
    runs: RunsOption = None,
) -> None:
    """Open MLflow's screens on this machine, over the store that studies write to.

    Says the page of the newest study's trials, the best first, once the server answers. Pick some
    there and press Compare. Ctrl-C ends it.
    """
    from carray.runs_folder import RunsFolder
    from carray.tracking import open_ui

    with log_on_stdout("carray.tracking.ui"):
        open_ui(RunsFolder.at(runs), port, browser=browser)


def sync(study: StudyOption = None, runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """Send a study's records and best weights to the tracking server again; nothing is doubled.

    For a server that didn't answer while the study ran, or a new one (MLFLOW_TRACKING_URI).
    """
    from carray.ensemble.sent_weights import send_best_weights
    from carray.reports.hints import runs_option
    from carray.runs_folder import RunsFolder
    from carray.tracking import sync_study

    where = RunsFolder.at(runs)
    folder = where.find_study(study)
    trials = sync_study(where, folder)
    sent = counted(trials, "trial")
    weights, trouble = send_best_weights(where, folder)
    data = {"study": folder.path.name, "trials": trials, "weights": weights, "trouble": trouble}
    further = [trouble or f"with the weights of {weights}"] if weights or trouble else []
    emit(
        data,
        lambda data: [
            f"MLflow has {sent} of study {data['study']}",
            *further,
            "",
            f"next: carray ui{runs_option(runs)}",
        ],
        as_json,
    )
