"""What clusters are made of: manifests, the image and the services agree with each other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from carray.cli.app import app

JOBS = Path(__file__).resolve().parents[2] / "jobs"
GIB_A_LANE, GIB_BESIDE = 0.2, 4.0  # of the head's memory


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((JOBS / name).read_text()))


def cluster_of(name: str) -> dict[str, Any]:
    (document,) = documents(f"kubernetes/{name}.yaml")
    assert document["apiVersion"] == "ray.io/v1"
    found: dict[str, Any] = next(
        (
            document["spec"][key]
            for key in ("rayClusterSpec", "rayClusterConfig")
            if key in document["spec"]
        ),
        document["spec"],
    )
    return found


def pods_of(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("name", ["rayjob", "raycluster", "rayservice"])
def test_a_cluster_has_the_ray_of_the_lock_and_pods_that_have_all_they_name(name: str) -> None:
    cluster = cluster_of(name)
    locked = re.search(r"^ray==(\S+)", (JOBS.parent / "requirements.lock").read_text(), re.M)
    assert locked is not None
    assert cluster["rayVersion"] == locked[1]
    assert cluster["authOptions"] == {"mode": "token"}
    (secret,) = documents("kubernetes/secret.example.yaml")
    for pod in pods_of(cluster):
        (container,) = pod["containers"]
        assert container["image"] == "REGISTRY/carray:0.1"
        assert container["envFrom"][0]["secretRef"]["name"] == secret["metadata"]["name"]
        assert {each["name"] for each in container["volumeMounts"]} == {
            each["name"] for each in pod["volumes"]
        }
        assert container["resources"]["limits"].keys() <= container["resources"]["requests"].keys()
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert cluster_of("rayjob") == cluster_of("raycluster")


def test_the_job_is_a_command_that_carray_takes_and_its_head_has_room_for_its_lanes() -> None:
    (job,) = documents("kubernetes/rayjob.yaml")
    program, command, *words = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("carray", "tune")
    tune = typer.main.get_command(app).commands["tune"]  # type: ignore[attr-defined]
    given = tune.make_context("tune", words).params
    (workers,) = cluster_of("rayjob")["workerGroupSpecs"]
    assert given["concurrent"] == workers["maxReplicas"]
    head, worker = (pod["containers"][0]["resources"] for pod in pods_of(cluster_of("rayjob")))
    memory = float(head["requests"]["memory"].removesuffix("Gi"))
    assert memory >= GIB_BESIDE + GIB_A_LANE * given["concurrent"]
    assert float(worker["requests"]["cpu"]) > given["cpus_per_worker"]
    assert worker["limits"]["nvidia.com/gpu"] == float(given["gpus_per_trial"])


def test_services_wait_for_those_that_they_need_and_no_password_is_written_down() -> None:
    (compose,) = documents("compose.yaml")
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert {each["source"] for each in service.get("configs", ())} <= compose["configs"].keys()
    assert set(services["mlflow"]["depends_on"]) == {"postgres", "bucket"}
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${")
    text = (JOBS / "compose.yaml").read_text()
    assert not re.search(r"(?i)(?:password|secret\w*)[:=] *[\"']?[a-z0-9]", text)
