"""Model packages in MLflow: a run with the figures, and a model that `mlflow.pyfunc` loads.

The logged model is code (`carray/inference/mlflow_entry.py`) plus the package folder, without
any pickle of ours.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from carray.errors import CarrayError, TrackingError
from carray.records import StudyRecord
from carray.runs_folder import RunsFolder
from carray.tracking.artifacts import MODEL_TAG
from carray.tracking.mlflow_client import (
    artifacts_of,
    check_writable,
    environment,
    store_of,
    tracking_uri,
)
from carray.tracking.study_run import StudyRun, mlflow_key
from carray.tracking.tracker import param_text

PARENT = "mlflow.parentRunId"
LONGEST_PATH = 1024  # longer text is base64; no system has such paths
CHAMPION = "champion"  # alias of a study's best model: `models:/STUDY@champion`


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

    It is registered under the study's name, as a version that the alias `champion` moves to if it
    is no worse, by log-loss where it was judged, than the version that has it.

    Raises:
        TrackingError: the store doesn't answer or refuses.
    """
    check_writable(runs)
    with store_of(runs) as client:
        run = StudyRun.find_or_make(client, study, artifacts_of(runs))
        run.write(study, ())
        tags = {
            "carray.study": study.name,
            "carray.kind": "model",
            MODEL_TAG: package.name,
            PARENT: run.run_id,
        }
        kind = "single trial" if params["members"] == 1 else f"ensemble of {params['members']}"
        with (
            _fluent(runs) as mlflow,
            mlflow.start_run(
                experiment_id=run.experiment_id, run_name=f"{package.name}, {kind}", tags=tags
            ) as started,
        ):
            run.say_data(started.info.run_id)
            mlflow.log_params(
                {mlflow_key(name): param_text(value) for name, value in params.items()}
            )
            mlflow.log_metrics({mlflow_key(name): value for name, value in values.items()})
            mlflow.log_artifact(str(package / "card.json"))
            model = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(code),
                artifacts={"package": _address(package)},
                pip_requirements=list(requirements),
                signature=_signature(),
                input_example=_example(),
            )
            uri = str(model.model_uri or f"runs:/{started.info.run_id}/model")
            with redirect_stderr(io.StringIO()):  # it prints, and our last lines say as much
                version = mlflow.register_model(uri, study.name)
            if _is_no_worse(client, study.name, values):
                client.set_registered_model_alias(study.name, CHAMPION, version.version)
            return uri


def _address(package: Path) -> str:
    """Return a package's address as MLflow reads it: of a path it takes what follows a `#` for no
    part of it, and of a URI the last name as it stands, so that `cars%402` isn't found.
    """
    return f"{package.resolve().parent.as_uri()}/{package.name}"


def _is_no_worse(client: Any, name: str, values: Mapping[str, float]) -> bool:
    """Compare a model's log-loss on the split that judged it with the champion's, if any."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    if version is None:
        return True
    known = client.get_run(client.get_model_version(name, str(version)).run_id).data.metrics
    return all(
        value <= known.get(mlflow_key(split_metric), math.inf)
        for split_metric, value in values.items()
        if split_metric in ("blend/log_loss", "val/log_loss")
    )


@contextmanager
def _fluent(runs: RunsFolder) -> Iterator[Any]:
    """Yield MLflow's module set to the store; its setting is an environment variable: put back."""
    import mlflow
    import mlflow.pyfunc

    before = os.environ.get("MLFLOW_TRACKING_URI", "")
    with environment({"MLFLOW_TRACKING_URI": tracking_uri(runs)}):
        mlflow.set_tracking_uri(tracking_uri(runs))
        try:
            yield mlflow
        finally:
            mlflow.set_tracking_uri(before)


def _signature() -> Any:
    """Return what a model takes: one column, whatever its name, of text; bytes pass, too.

    It isn't left to type hints: a server refuses all but `inputs` where it is, and CSV of any type.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    text, anything = Schema([ColSpec("string")]), Schema([ColSpec(AnyType())])
    return ModelSignature(inputs=text, outputs=anything)


def _example() -> Any:
    """Return an input as a server takes it: a frame with a small white image as base64."""
    import pandas as pd
    from PIL import Image

    Image.new("RGB", (8, 8), "white").save(file := io.BytesIO(), "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})


def serve(load: Callable[[Path], Any]) -> None:
    """Tell MLflow what to load: `load` takes a package's folder and returns a model.

    The model's `predict` takes paths and files' bytes, and returns (images, classes) probabilities;
    `classes` names them.
    """
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    class ServedPackage(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Takes images as paths, base64 or bytes: a list, or a frame of one column.

        Returns a frame of probabilities, one column a class.
        """

        def load_context(self, context: Any) -> None:
            self._model = load(Path(context.artifacts["package"]))

        # a frame, as enforced by the signature; models logged before have none, and get lists too
        @_hinted({"model_input": pd.DataFrame, "return": pd.DataFrame})
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            column = pd.DataFrame(model_input).iloc[:, :1].to_numpy(object).ravel()
            try:
                if not len(column):
                    raise TrackingError("no image was given: pass a frame with one column")
                probabilities = self._model.predict([given_image(each) for each in column])
            except CarrayError as error:  # a server hides the text of all errors but its own
                code = ErrorCode.Value("INVALID_PARAMETER_VALUE")
                raise MlflowException(str(error), code) from None
            return pd.DataFrame(probabilities, columns=list(self._model.classes))

    mlflow.models.set_model(ServedPackage())


def _hinted(hints: dict[str, Any]) -> Callable[[Any], Any]:
    """Give a method type hints that MLflow can resolve: not as text, of names known here alone."""

    def hinted(method: Any) -> Any:
        method.__annotations__ = hints
        return method

    return hinted


def given_image(given: object) -> Path | bytes:
    """Return an image as a path or a file's bytes: text is a path that is there, or base64.

    Raises:
        TrackingError: text is neither, or this is neither text nor bytes.
    """
    if isinstance(given, bytes):
        return given
    if not isinstance(given, str):
        raise TrackingError(f"{given!r} is no image: send a path, or its bytes as base64")
    text = given.partition(",")[2] if given.startswith("data:") else given
    if len(given) < LONGEST_PATH and Path(given).exists():
        return Path(given)
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # MLflow's has lines
    except (binascii.Error, ValueError):
        raise TrackingError(
            f"{given[:80]!r} is no file here and no base64: send a path, or its bytes as base64"
        ) from None
