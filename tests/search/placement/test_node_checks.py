"""Nodes are checked before they get lanes: what is wrong is named, and looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from carray.data.manifest import Manifest
from carray.search.placement.node_checks import AGAIN_SECONDS, Answer, NodeChecks, left_files
from carray.search.placement.node_report import NodeQuestion, node_report, problems
from carray.search.placement.ray_cluster import ClusterNode

OWN = ClusterNode("own", "10.0.0.1", {"CPU": 4.0}, is_own=True)
OTHER = ClusterNode("other", "10.0.0.7", {"CPU": 4.0})
FINE = node_report(NodeQuestion())


class Nodes:
    """A cluster whose nodes answer as a test says."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.up = [OWN, OTHER]
        self.asked: list[str] = []

    def nodes(self) -> list[ClusterNode]:
        return self.up

    def ask(self, asked: Sequence[tuple[ClusterNode, NodeQuestion]]) -> dict[str, Answer]:
        self.asked += [node.id for node, _ in asked]
        return {node.id: self.answers[node.id] for node, _ in asked}


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def checks_of(
    nodes: Nodes, clock: Clock | None = None, question: NodeQuestion | None = None
) -> tuple[NodeChecks, list[str]]:
    said: list[str] = []
    asked = question or NodeQuestion()
    return NodeChecks(nodes, asked, (), said.append, clock or Clock()), said


def test_a_driver_alone_asks_nobody() -> None:
    nodes = Nodes()
    nodes.up = [OWN]
    checks, said = checks_of(nodes)
    checks.look()
    assert checks.good() == [OWN]
    assert (nodes.asked, said) == ([], [])


def test_a_node_that_fails_is_named_gets_no_lane_and_is_asked_again_ever_later() -> None:
    nodes, clock = Nodes(other=FINE.model_copy(update={"weights": "no weights for b3"})), Clock()
    checks, said = checks_of(nodes, clock)
    for seconds in (0, AGAIN_SECONDS - 1, AGAIN_SECONDS, 2 * AGAIN_SECONDS, 3 * AGAIN_SECONDS):
        clock.now = seconds
        checks.look()
    assert len(nodes.asked) == 3
    assert said == ["node 10.0.0.7: no weights for b3; it gets no lane"]
    assert checks.good() == [OWN]
    assert checks.refused() == ["node 10.0.0.7: no weights for b3"]
    nodes.answers["other"] = FINE
    clock.now *= 10
    checks.look()
    assert checks.good() == [OWN, OTHER]
    assert said[1:] == ["node 10.0.0.7: nothing is wrong any more"]
    asked = len(nodes.asked)
    clock.now *= 10
    checks.look()
    assert len(nodes.asked) == asked


def test_a_node_that_does_not_answer_and_a_clock_that_is_off_are_said() -> None:
    checks, said = checks_of(Nodes(other="no answer within 90 s"))
    checks.look()
    late = Nodes(other=FINE.model_copy(update={"ahead_seconds": -93.0}))
    behind, told = checks_of(late)
    behind.look()
    assert said == ["node 10.0.0.7: no answer within 90 s; it gets no lane"]
    assert told == ["node 10.0.0.7: its clock is 93 s behind"]
    assert behind.good() == [OWN, OTHER]


def test_other_code_other_packages_and_missing_gpus_are_problems_and_builds_are_none() -> None:
    assert problems(FINE, NodeQuestion()) == []
    torch = FINE.versions["torch"]
    built = FINE.model_copy(update={"versions": {**FINE.versions, "torch": f"{torch}+cpu"}})
    assert problems(built, NodeQuestion()) == []
    old = {"versions": {**FINE.versions, "timm": "0.9"}, "source": "0000", "gpus_seen": 0}
    found = problems(FINE.model_copy(update=old), NodeQuestion(gpus=2.0))
    assert found[0].startswith("timm 0.9, here ")
    assert found[1].startswith("another carray (")
    assert found[2:] == ["torch sees 0 GPU of its 2"]


@pytest.fixture
def question(toy_manifest: Manifest, tmp_path: Path) -> NodeQuestion:
    return NodeQuestion(
        data=str(toy_manifest.folder),
        manifest_hash=toy_manifest.hash,
        runs=str(tmp_path),
        inputs=((40, "pad"),),
    )


def test_a_node_that_shares_everything_has_no_problem(
    question: NodeQuestion, tmp_path: Path
) -> None:
    with left_files([tmp_path]) as nonce:
        report = node_report(replace(question, nonce=nonce))
    assert (report.data, report.runs, report.store, report.weights) == ("", "", "", "")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_same_name_is_not_believed_to_be_shared(question: NodeQuestion) -> None:
    runs = node_report(replace(question, nonce="left-nowhere-here")).runs
    assert runs.endswith("is not the driver's folder there: share --runs with every node")


def test_missing_and_other_data_are_told_apart(question: NodeQuestion, tmp_path: Path) -> None:
    missing = node_report(replace(question, data=str(tmp_path / "cars"))).data
    assert missing == f"the data folder {tmp_path / 'cars'} doesn't exist"
    other = node_report(replace(question, manifest_hash="0123456789")).data
    assert other.startswith("another data set at ")
    assert other.endswith(", here 01234567)")


def test_a_node_that_shares_no_folder_gets_lanes_and_is_said_to_send(
    question: NodeQuestion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "cache"))
    lacking = replace(question, data=str(tmp_path / "cars"), nonce="left-nowhere-here")
    assert len(problems(node_report(lacking), lacking)) == 2, "where nothing may be sent"
    sends = replace(lacking, sends_runs=True, sends_images=120)
    report = node_report(sends)
    assert problems(report, sends) == []
    checks, said = checks_of(Nodes(other=report), question=sends)
    checks.look()
    assert checks.good() == [OWN, OTHER]
    note = "shares no folder with the driver: gets the data and sends what its trials leave"
    assert said == [f"node 10.0.0.7: {note}"]
    large = replace(sends, inputs=((200_000, "pad"),))
    assert "the pixel store needs " in problems(node_report(large), large)[0]
    (tmp_path / "cache").write_text("no folder")
    refused = problems(node_report(sends), sends)
    assert refused[0].endswith("cache: set CARRAY_CACHE there")


def test_a_store_needs_its_photographs_and_room(
    question: NodeQuestion, toy_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(question, nonce="left-nowhere-here")
    assert node_report(asked).store == ""
    large = node_report(replace(asked, inputs=((200_000, "pad"),))).store
    assert "the pixel store needs " in large
    gone = replace(toy_manifest, images=toy_manifest.images.assign(path="/gone.png"))
    monkeypatch.setattr(Manifest, "load", lambda _: gone)
    lost = "neither the pixel store nor /gone.png, which it would be built from"
    assert node_report(asked).store == lost


def test_weights_that_a_node_lacks_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("carray.models.weights.hub_error", lambda *_: "no network")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("carray.models.weights._is_downloaded", lambda _: False)
    asked = (("resnet18", True), ("resnet34", True), ("resnet50", False))
    report = node_report(NodeQuestion(weights=asked[:1]))
    assert report.weights == "no weights for backbone 'resnet18' (no network)"
    report = node_report(NodeQuestion(weights=asked))
    assert report.weights == "no weights for resnet18, resnet34"
    for name in ("resnet18.a1_in1k", "resnet34"):
        (tmp_path / f"{name}.safetensors").touch()
    sent = NodeQuestion(weights=asked, sends_weights=("resnet18",))
    assert node_report(sent).weights == "no weights for backbone 'resnet34' (no network)"
    assert node_report(NodeQuestion(weights=asked, weights_folder=str(tmp_path))).weights == ""
