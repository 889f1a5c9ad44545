"""Which nodes may hold lanes: each is checked before, and again on a slow clock while it fails."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from carray.search.placement.node_report import (
    CLOCK_SECONDS,
    NodeQuestion,
    NodeReport,
    problems,
    sending_note,
)
from carray.search.placement.ray_cluster import ClusterNode

AGAIN_SECONDS = 60.0  # until a node that failed is asked again; twice as long each time after
AGAIN_MOST_SECONDS = 3600.0
LEFT = ".carray-"  # begins the names of files that a driver leaves for nodes to see

Answer = NodeReport | str  # a text says why there is no report


class Cluster(Protocol):
    """The nodes that there are, and what they say of themselves: Ray's, or a stand-in."""

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes that are alive, the driver's first."""

    def ask(self, asked: Sequence[tuple[ClusterNode, NodeQuestion]]) -> dict[str, Answer]:
        """Return what each node answers, by its id."""

    def request(self, bundles: Sequence[dict[str, float]]) -> None:
        """Ask the cluster to grow until it holds these; of none, no longer."""


@dataclass
class _Verdict:
    problem: str = ""  # "" of a node that may hold lanes
    pause_seconds: float = AGAIN_SECONDS
    asked_at: float = 0.0


class NodeChecks:
    """The nodes of a cluster, those that may hold lanes among them.

    The driver's own node needs none before: the driver has read the same files, by the same code.
    That it can have the weights, which other nodes may have, `trusts_own` says.
    """

    def __init__(
        self,
        cluster: Cluster,
        question: NodeQuestion,
        places: Sequence[Path],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        accelerator: str | None = None,
        trusts_own: bool = True,
    ) -> None:
        self._cluster, self._question = cluster, question
        self._places = places  # folders of the driver that a node may share
        self._say, self._clock = say, clock
        self._trusts_own = trusts_own
        self._accelerator = accelerator  # the kind of GPU that a node must have, if any
        self._nodes: list[ClusterNode] = []
        self._verdicts: dict[str, _Verdict] = {}

    def look(self) -> None:
        """Check nodes that are new or whose time has come; say what is wrong with each."""
        self._nodes = self._cluster.nodes()
        for own in (node for node in self._nodes if node.is_own and self._trusts_own):
            self._verdicts.setdefault(own.id, _Verdict())
        due = [node for node in self._suiting() if self._is_due(node)]
        if not due:
            return
        with left_files(self._places) as nonce:
            question = replace(self._question, nonce=nonce)
            asked = [(node, replace(question, gpus=node.resources.get("GPU", 0))) for node in due]
            answers = self._cluster.ask(asked)
        for node, about in asked:
            self._judge(node, about, answers[node.id])

    def refuse(self, nodes: Sequence[str], why: str) -> None:
        """Take it that nodes, by their ids, can't train, whatever they said; ask again later."""
        for node in nodes:
            known = self._verdicts.setdefault(node, _Verdict())
            known.problem, known.asked_at = why, self._clock()

    def good(self) -> list[ClusterNode]:
        """Return the nodes that may hold lanes."""
        return [each for each in self._suiting() if not self.problem_of(each)]

    def refused(self) -> list[str]:
        """Say of each node that may hold none why."""
        told = [(node.address, self.problem_of(node)) for node in self._suiting()]
        return [f"node {address}: {problem}" for address, problem in told if problem]

    def problem_of(self, node: ClusterNode) -> str:
        """Return why a node gets no lane; "" where it does."""
        verdict = self._verdicts.get(node.id)
        return "not checked yet" if verdict is None else verdict.problem

    def accelerators(self) -> list[str]:
        """Return the kinds of GPUs that there are, as Ray names them."""
        return sorted({kind for node in self._nodes for kind in node.accelerators})

    def _suiting(self) -> list[ClusterNode]:
        wanted = self._accelerator
        return [node for node in self._nodes if wanted is None or wanted in node.accelerators]

    def _is_due(self, node: ClusterNode) -> bool:
        verdict = self._verdicts.get(node.id)
        if verdict is None:
            return True
        return bool(verdict.problem) and self._clock() - verdict.asked_at >= verdict.pause_seconds

    def _judge(self, node: ClusterNode, question: NodeQuestion, answer: Answer) -> None:
        before = self._verdicts.get(node.id)
        found = [answer] if isinstance(answer, str) else problems(answer, question)
        pause = min(2 * before.pause_seconds, AGAIN_MOST_SECONDS) if before else AGAIN_SECONDS
        verdict = _Verdict("; ".join(found), pause, self._clock())
        self._verdicts[node.id] = verdict
        if verdict.problem and (before is None or before.problem != verdict.problem):
            self._say(f"node {node.address}: {verdict.problem}; it gets no lane")
        if before and before.problem and not verdict.problem:
            self._say(f"node {node.address}: nothing is wrong any more")
        if not found and not isinstance(answer, str) and (note := sending_note(answer, question)):
            self._say(f"node {node.address}: {note}")
        ahead = answer.ahead_seconds if isinstance(answer, NodeReport) else 0.0
        if abs(ahead) > CLOCK_SECONDS:
            where = "ahead" if ahead > 0 else "behind"
            self._say(f"node {node.address}: its clock is {abs(ahead):.0f} s {where}")


@contextmanager
def left_files(places: Sequence[Path]) -> Iterator[str]:
    """Leave a file in each place, for nodes that share it to see; yield its name."""
    name = f"{LEFT}{uuid.uuid4().hex}"
    with ExitStack() as stack:
        for place in places:
            with suppress(OSError):  # where nothing can be written nothing is shared either
                place.mkdir(parents=True, exist_ok=True)
                (place / name).touch()
                stack.callback((place / name).unlink, missing_ok=True)
        yield name
