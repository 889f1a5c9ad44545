"""Ray's nodes, and what each of them says of itself: one task a node."""

from __future__ import annotations

import time
from collections.abc import Sequence

import ray
from ray.autoscaler.sdk import request_resources

from carray.lanes.ray_groups import forwarded_environment
from carray.lanes.this_node import on_node
from carray.search.placement.node_checks import Answer
from carray.search.placement.node_report import NodeQuestion, NodeReport, node_report
from carray.search.placement.ray_cluster import ClusterNode, cluster_nodes

ANSWER_SECONDS = 120.0  # a busy node takes 40 to start a process and import torch there


class RayCluster:
    """The cluster that this process has joined; see `Cluster`.

    Args:
        variables: of this process's environment, which the nodes' own processes get too.
    """

    def __init__(self, variables: Sequence[str] = ()) -> None:
        self._variables = variables

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes that are alive, the driver's first."""
        return cluster_nodes()

    def ask(self, asked: Sequence[tuple[ClusterNode, NodeQuestion]]) -> dict[str, Answer]:
        """Have each node look around, all at once; return what they answer, by id."""
        waiting = {_begun(node, question, self._variables): node.id for node, question in asked}
        answers: dict[str, Answer] = {}
        deadline = time.monotonic() + ANSWER_SECONDS
        while waiting and (left := deadline - time.monotonic()) > 0:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=left)
            for each in ready:
                answers[waiting.pop(each)] = _answer(each)
        for each in waiting:
            ray.cancel(each, force=True)
        silent = f"no answer within {ANSWER_SECONDS:.0f} s"
        return answers | dict.fromkeys(waiting.values(), silent)

    def request(self, bundles: Sequence[dict[str, float]]) -> None:
        """Ask Ray's autoscaler for these; where there is none nobody hears it."""
        request_resources(bundles=list(bundles))


def _begun(
    node: ClusterNode, question: NodeQuestion, variables: Sequence[str]
) -> ray.ObjectRef[NodeReport]:
    """Ask a node in a process of its own: torch, once imported, takes memory."""
    task = ray.remote(
        num_cpus=0,
        max_calls=1,
        max_retries=0,
        scheduling_strategy=on_node(node.id),
        runtime_env={"env_vars": forwarded_environment(variables)},
    )(node_report)
    asked: ray.ObjectRef[NodeReport] = task.remote(question)
    return asked


def _answer(reference: ray.ObjectRef[NodeReport]) -> Answer:
    try:
        report: NodeReport = ray.get(reference)
    except ray.exceptions.TaskUnschedulableError:
        return "it has left the cluster, or is about to"
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        return f"it can't be checked ({lines[-1].strip() if lines else type(error).__name__})"
    return report.model_copy(update={"ahead_seconds": report.clock - time.time()})
