"""Model packages in MLflow: a run with the figures, and a model that `mlflow.pyfunc` loads.

The logged model is code (`carray/ensemble/served.py`) plus the package folder; no pickle of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carray.errors import TrackingError
from carray.records import RunsFolder, StudyRecord
from carray.tracking.contract import param_text
from carray.tracking.door import client_of, is_default, quiet, told_as_tracking_errors, tracking_uri
from carray.tracking.study_run import StudyRun, clean


def log_package(
    runs: RunsFolder,
    study: StudyRecord,
    package: Path,
    code: Path,
    *,
    params: Mapping[str, Any],
    values: Mapping[str, float],
    requirements: tuple[str, ...],
) -> str:
    """Log a model package as a run of its study and a loadable model; return the model's URI.

    Raises:
        TrackingError: the store doesn't answer or refuses.
    """
    client = client_of(runs)
    with told_as_tracking_errors(tracking_uri(runs)), quiet():
        artifacts = runs.tracking_artifacts if is_default(runs) else None
        run = StudyRun.find_or_make(client, study, artifacts)
        run.write(study, ())
        with _fluent(runs, run) as mlflow, mlflow.start_run(run_name=package.name) as started:
            mlflow.set_tags({"carray.study": study.name, "carray.kind": "model"})
            mlflow.set_tag("mlflow.parentRunId", run.run_id)
            mlflow.log_params({clean(name): param_text(value) for name, value in params.items()})
            mlflow.log_metrics({clean(name): value for name, value in values.items()})
            mlflow.log_artifact(str(package / "card.json"))
            model = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(code),
                artifacts={"package": str(package)},
                pip_requirements=list(requirements),
            )
            return str(model.model_uri or f"runs:/{started.info.run_id}/model")


@contextmanager
def _fluent(runs: RunsFolder, run: StudyRun) -> Iterator[Any]:
    """Yield MLflow's module set to a study's experiment, and put it back afterwards."""
    import mlflow
    import mlflow.pyfunc

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri(runs))
    mlflow.set_experiment(experiment_id=run.experiment_id)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(before)


def serve(load: Callable[[Path], Any]) -> None:
    """Tell MLflow what to load: `load` takes a package's folder and returns a model.

    The model's `predict(paths)` returns (images, classes) probabilities; `classes` names them.
    """
    import mlflow
    import pandas as pd

    class ServedPackage(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Takes a frame of image paths, returns a frame of probabilities, one column a class."""

        def load_context(self, context: Any) -> None:
            self._model = load(Path(context.artifacts["package"]))

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            paths = [Path(str(path)) for path in pd.DataFrame(model_input).iloc[:, 0]]
            if not paths:
                raise TrackingError("no image paths were given: pass a frame with one column")
            return pd.DataFrame(self._model.predict(paths), columns=list(self._model.classes))

    mlflow.models.set_model(ServedPackage())
