"""The doctor: what fails is named with its cure, and the exit code says whether anything does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from carray.cli.app import app
from carray.data.manifest import Manifest
from carray.runs_folder import RunsFolder
from carray.search import doctor
from carray.search.doctor import Finding, look_over
from carray.search.placement.node_report import NodeQuestion, node_report
from carray.search.placement.ray_cluster import ClusterNode

NODE = ClusterNode("7", "10.0.0.7", {"CPU": 8.0, "GPU": 1.0})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network, on which nothing is set."""
    monkeypatch.setattr(doctor, "hub_error", lambda: "no network")
    for name in (
        "RAY_ADDRESS",
        "CARRAY_WEIGHTS",
        "CARRAY_STORE",
        "CARRAY_STORAGE",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)


def found(folder: Path, data: Path | None = None, address: str = "") -> dict[str, Finding]:
    runs = RunsFolder.unchecked(folder / "runs")
    return {each.name: each for each in look_over(data, address, runs)}


def test_a_fine_machine_fails_nothing_and_nothing_is_made(tmp_path: Path, toy_data: Path) -> None:
    told = found(tmp_path, toy_data)
    assert {each.state for each in told.values()} <= {"ok", "note"}
    assert list(told) == [
        *("versions", "data", "store", "runs", "memory", "weights", "tracking", "gpu", "ray")
    ]
    assert told["data"].text.endswith(f"12 classes, hash {Manifest.load(toy_data).hash[:8]}")
    assert not list(tmp_path.iterdir())


def test_what_fails_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARRAY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    monkeypatch.setenv("CARRAY_STORAGE", "postgresql://ada:secret@127.0.0.1:9/optuna")
    (tmp_path / "runs").touch()
    told = found(tmp_path, tmp_path / "cars", address="127.0.0.1:9")
    fails = {name: each for name, each in told.items() if each.state == "fails"}
    assert sorted(fails) == ["cluster", "data", "runs", "storage", "tracking", "weights"]
    assert all(each.cure for each in fails.values())
    assert fails["weights"].line().startswith("FAILS  weights   CARRAY_WEIGHTS=")
    assert "secret" not in fails["tracking"].line() + fails["storage"].line()
    assert "no Ray cluster answers at '127.0.0.1:9'" in fails["cluster"].text


def test_a_home_that_cannot_be_read_is_one_line_and_the_others_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ("long" * 70)  # root may read all but a name that no system takes
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / ".cache"))
    told = found(tmp_path)
    assert [name for name, each in told.items() if each.state == "fails"] == ["home"]
    assert told["home"].line().startswith(f"FAILS  home      HOME={home} can't be read (File name")
    assert told["home"].cure.startswith("set HOME to another folder")
    assert list(told)[-3:] == ["tracking", "gpu", "ray"]


def test_a_node_is_said_on_a_line() -> None:
    fine = node_report(NodeQuestion()).model_copy(
        update={"host_address": "10.0.0.7", "shared_memory_gib": 8.0}
    )
    lines = [
        doctor._node(NODE, NodeQuestion(gpus=1), answer).line()
        for answer in (
            fine,
            fine.model_copy(update={"host_address": "127.0.1.1", "host": "gpu-7"}),
            fine.model_copy(update={"gpus_seen": 0}),
            "no answer within 90 s",
        )
    ]
    node = "node      10.0.0.7 (8 CPU, 1 GPU)"
    assert lines[:3] == [
        f"ok     {node}: fine",
        f"note   {node}: its name gpu-7 is 127.0.1.1 in /etc/hosts",
        f"FAILS  {node}: torch sees 0 GPU of its 1",
    ]
    assert lines[3].startswith(f"FAILS  {node}: no answer within 90 s; ")


def test_the_command_ends_with_1_where_something_fails(tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    fine = CliRunner().invoke(app, ["doctor", *runs])
    assert fine.exit_code == 0, fine.output
    refused = CliRunner().invoke(app, ["doctor", str(tmp_path / "cars"), *runs, "--json"])
    assert refused.exit_code == 1
    told = json.loads(refused.output)
    assert told["ok"] is False
    assert [each["name"] for each in told["findings"] if each["state"] == "fails"] == ["data"]


def test_data_and_runs_at_urls_are_looked_at(
    tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "cache"))
    at_url = tmp_path / "cars"
    at_url.mkdir()
    for name in ("images.csv", "manifest.json"):
        (at_url / name).write_bytes((toy_data / name).read_bytes())
    (tmp_path / "closed").touch()
    told = {
        name: {
            each.name: each
            for each in look_over(at_url.as_uri(), "", RunsFolder.at((tmp_path / name).as_uri()))
        }
        for name in ("open", "closed")
    }
    assert told["open"]["data"].text.startswith(f"{at_url.as_uri()}: ")
    assert told["open"]["url"].text.startswith(f"{(tmp_path / 'open').as_uri()} takes files (")
    assert not list((tmp_path / "open").iterdir())
    assert told["closed"]["url"].state == "fails"
    assert told["closed"]["url"].cure
