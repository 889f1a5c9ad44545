"""The application on Ray Serve: what it may be told, and that the files in `jobs/` tell it so."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from carray.errors import ConfigError

pytest.importorskip("grpc_reflection", reason="Ray Serve needs `pip install 'carray[serve]'`")

with warnings.catch_warnings(action="ignore"):  # Ray's own, of pydantic
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    from carray.serving.gauges import Gauges
    from carray.serving.limits import Refused
    from carray.serving.ray_app import NAME, ServeOptions, build
    from carray.serving.ray_meters import RayMeters

pytestmark = pytest.mark.filterwarnings("ignore")

JOBS = Path(__file__).resolve().parents[2] / "jobs"


def configs() -> dict[str, dict[str, Any]]:
    service = yaml.safe_load((JOBS / "kubernetes" / "rayservice.yaml").read_text())
    return {
        "here": yaml.safe_load((JOBS / "serve.yaml").read_text()),
        "kubernetes": yaml.safe_load(service["spec"]["serveConfigV2"]),
    }


@pytest.mark.parametrize("where", ["here", "kubernetes"])
def test_a_config_file_tells_ray_serve_and_the_application_what_they_take(where: str) -> None:
    (application,) = ServeDeploySchema.model_validate(configs()[where]).applications
    module, _, name = application.import_path.partition(":")
    assert (module, name) == (build.__module__, build.__name__)
    (deployment,) = application.deployments
    assert deployment.name == NAME
    options = ServeOptions.model_validate(application.args)
    host = configs()[where]["http_options"]["host"]
    assert (options.token_file is None) == (host == "127.0.0.1")
    assert isinstance(build(application.args), serve.Application)


def test_replicas_hand_their_figures_to_ray_and_none_gives_its_own() -> None:
    gauges = Gauges(RayMeters())
    gauges.requested(200, 0.1)
    gauges.batched(3, 0.05)
    for is_unknown in (False, True):
        gauges.answered("m", "a", is_unknown)
    gauges.waits("m", 0)
    with pytest.raises(Refused, match="scrape each node's metrics port") as refused:
        gauges.text()
    assert refused.value.status == 404


def test_words_of_a_command_are_read_and_others_are_refused() -> None:
    assert ServeOptions.model_validate({"models": "a,b", "rate": "5"}).models == ("a", "b")
    for args, why in (
        ({}, "argument 'models': field required; there are models, runs"),
        ({"models": ""}, "argument 'models': tuple should have at least 1 item"),
        ({"models": "a", "modles": "b"}, "argument 'modles': extra inputs are not permitted"),
    ):
        with pytest.raises(ConfigError, match=why):
            build(args)
