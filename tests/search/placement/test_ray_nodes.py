"""Ray's nodes look around for themselves, each in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from carray.search.placement.node_checks import NodeChecks, left_files
from carray.search.placement.node_report import NodeQuestion, NodeReport, problems
from carray.search.placement.ray_nodes import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


def test_a_node_reports_what_it_sees_and_one_that_is_gone_says_nothing(
    ray_instance: None, tmp_path: Path
) -> None:
    cluster = RayCluster()
    (own,) = cluster.nodes()
    assert own.is_own
    gone = replace(own, id="ab" * (len(own.id) // 2))  # all f is Ray's word for none
    with left_files([tmp_path]) as nonce:
        question = NodeQuestion(runs=str(tmp_path), nonce=nonce)
        answers = cluster.ask([(own, question), (gone, question)])
    report = answers[own.id]
    assert isinstance(report, NodeReport)
    assert problems(report, question) == []
    assert abs(report.ahead_seconds) < 5
    assert answers[gone.id] == "it has left the cluster, or is about to"
    checks = NodeChecks(cluster, NodeQuestion(data="/nowhere"), (), pytest.fail)
    checks.look()
    assert checks.good() == [own]
