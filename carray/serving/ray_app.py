"""The application of `carray serve` on Ray Serve: replicas on a cluster, behind one address.

serve run carray.serving.ray_app:build models=autumn-top3 runs=/ABS/RUNS
serve run jobs/serve.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ray import serve

from carray.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "Carray"  # of the deployment, under which a config file says how many replicas there are
ONGOING = 64  # requests of a replica, so that its own queue fills batches and refuses with 429


class ServeOptions(BaseModel):
    """What is served; `args` of the application in a config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...] = Field(min_length=1)
    """Package names, or paths that every node sees; in words of a command, commas between."""
    runs: str | None = None
    """The runs folder, as every node sees it, or its URL; None takes each node's `$CARRAY_RUNS`."""
    token_file: str | None = None
    """The file with the token, on every node; None answers only who calls it by a loopback name."""
    device: str | None = None
    """A torch device; None takes the GPU where a replica has one."""
    label_parts: str = "auto"
    """How make, model and year are read from class names; a file is one on every node."""
    rate: int = Field(0, ge=0)
    """Requests a minute that each replica takes of one client's address: all take as many times
    more as there are replicas. 0: as many as come. Behind an ingress all clients are one."""

    @field_validator("models", mode="before")
    @classmethod
    def _listed(cls, models: Any) -> Any:
        return tuple(filter(None, models.split(","))) if isinstance(models, str) else models


def build(args: Mapping[str, Any]) -> serve.Application:
    """Return the application for `serve run`; each replica loads the models for itself.

    Args:
        args: `ServeOptions` by name; numbers may be texts.

    Raises:
        ConfigError: one is unknown or no such value, or no model is named.
    """
    try:
        options = ServeOptions.model_validate(dict(args))
    except ValidationError as error:
        name, why = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
        known = ", ".join(ServeOptions.model_fields)
        raise ConfigError(f"argument {name!r}: {why.lower()}; there are {known}") from None

    def application() -> FastAPI:
        from carray.serving.limits import Limits
        from carray.serving.ray_meters import RayMeters
        from carray.serving.server import build_service, read_token

        file, limits = options.token_file, Limits(rate_per_minute=options.rate)
        return build_service(
            options.models,
            limits=limits,
            token=read_token(None if file is None else Path(file)),
            is_open=file is not None,
            device=options.device,
            label_parts=options.label_parts,
            runs=options.runs,
            meters=RayMeters(),
        )

    deployed = serve.deployment(name=NAME, max_ongoing_requests=ONGOING)
    bound: serve.Application = deployed(serve.ingress(application)()).bind()
    return bound
