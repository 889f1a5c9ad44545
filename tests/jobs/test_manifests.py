"""What clusters are made of: manifests, the image and the services agree with each other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config

from carray.cli.app import app

JOBS = Path(__file__).resolve().parents[2] / "jobs"
GIB_A_LANE, GIB_BESIDE = 0.2, 4.0  # of the head's memory
KUBERNETES = "1.33"  # whose published schemas the parts that are Kubernetes' own are held against
MANIFESTS = ("rayjob", "raycluster", "rayservice")


def fields(required: str, more: str = "", **known: Any) -> dict[str, Any]:
    """Return the schema of an object that has these fields and no others; any value by default."""
    every = {name: {} for name in [*required.split(), *more.split()]} | known
    return {
        "type": "object",
        "required": required.split(),
        "properties": every,
        "additionalProperties": False,
    }


# KubeRay's API reference, v1: the fields of its types. No registry has its schemas as a file.
WHOLE, TEXT, YES_OR_NO = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
START = {"type": "object", "additionalProperties": TEXT}
CLUSTER = fields(
    "headGroupSpec",
    "headServiceAnnotations suspend managedBy gcsFaultToleranceOptions",
    rayVersion=TEXT,
    enableInTreeAutoscaling=YES_OR_NO,
    authOptions=fields("mode", mode={"enum": ["disabled", "token"]}),
    autoscalerOptions=fields(
        "",
        "resources image imagePullPolicy env envFrom volumeMounts securityContext upscalingMode",
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=WHOLE,
    ),
    headGroupSpec=fields(
        "template",
        "serviceType headService enableIngress resources labels",
        rayStartParams=START,
    ),
    workerGroupSpecs={
        "type": "array",
        "items": fields(
            "groupName template maxReplicas minReplicas",
            "numOfHosts scaleStrategy suspend idleTimeoutSeconds resources labels",
            rayStartParams=START,
            replicas=WHOLE,
        ),
    },
)
SPECS = {
    "RayCluster": CLUSTER,
    "RayJob": fields(
        "",
        "activeDeadlineSeconds submitterPodTemplate metadata clusterSelector submitterConfig "
        "managedBy deletionStrategy runtimeEnvYAML jobId submissionMode entrypointResources "
        "entrypointNumCpus entrypointNumGpus suspend",
        entrypoint=TEXT,
        backoffLimit=WHOLE,
        ttlSecondsAfterFinished=WHOLE,
        shutdownAfterJobFinishes=YES_OR_NO,
        rayClusterSpec=CLUSTER,
    ),
    "RayService": fields(
        "",
        "serveService upgradeStrategy rayClusterDeletionDelaySeconds",
        serveConfigV2=TEXT,
        rayClusterConfig=CLUSTER,
    ),
}


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


def held_against_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_fields_that_kuberay_and_kubernetes_know(name: str) -> None:
    (document,) = documents(f"kubernetes/{name}.yaml")
    jsonschema.validate(document["spec"], SPECS[document["kind"]])
    for pod in pods_of(cluster_of(name)):
        metadata = document["metadata"]
        held_against_kubernetes(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
        )


def test_the_secret_is_one_that_kubernetes_knows_and_a_mistyped_pod_is_not() -> None:
    (secret,) = documents("kubernetes/secret.example.yaml")
    held_against_kubernetes(secret)
    pod = pods_of(cluster_of("rayjob"))[0]
    pod["containers"][0]["volumeMount"] = pod["containers"][0].pop("volumeMounts")
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        held_against_kubernetes(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "head"}, "spec": pod}
        )


@pytest.mark.parametrize("name", MANIFESTS)
def test_rays_autoscaler_reads_the_workers_that_a_cluster_may_grow_to(name: str) -> None:
    cluster = cluster_of(name)
    (workers,) = cluster["workerGroupSpecs"]
    document = {"metadata": {"name": name, "namespace": "cars"}, "spec": cluster}
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(document)
    assert read["idle_timeout_minutes"] == 5
    kinds = read["available_node_types"]
    head, grown = kinds[read["head_node_type"]], kinds[workers["groupName"]]
    assert (head["resources"]["CPU"], head["max_workers"]) == (0, 0)
    assert (grown["min_workers"], grown["max_workers"]) == (
        workers["minReplicas"],
        workers["maxReplicas"],
    )
    (container,) = workers["template"]["spec"]["containers"]
    asked = container["resources"]["requests"]
    assert grown["resources"]["CPU"] == int(asked["cpu"])
    assert grown["resources"].get("GPU", 0) == asked.get("nvidia.com/gpu", 0)


@pytest.mark.parametrize("name", MANIFESTS)
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
