"""What goes wrong: one fault every few seconds, drawn by a seed, and what takes it back."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.chaos.nodes import RAY_PORT, SUBNET, Node, command
from tests.chaos.services import Services
from tests.chaos.study import TuneCommand
from tests.processes import words_of

AWAY_SECONDS = 20.0  # a link, S3, a full disk; a node until it is back
POSTGRES_SECONDS = 5.0
HEAD_SECONDS = 45.0
LOOK_AGAIN_SECONDS = 5.0  # whether the head is back
DRAIN_SECONDS = 25  # of notice
DAEMONS = "site-packages/ray/"  # in the command lines of Ray's
MOST_NODES = 4


class Faults:
    """Draws faults for one study on the nodes that are up; `again` brings back what is away."""

    def __init__(
        self,
        seed: int,
        nodes: list[Node],
        new_node: Callable[[int], Node],
        services: Services,
        tune: TuneCommand,
        has_postgres: bool,
        only: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self._random = random.Random(seed)
        self._nodes, self._new_node = nodes, new_node
        self._services, self._tune, self._say = services, tune, say
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.happened: list[str] = []
        self._kinds: dict[str, Callable[[], str]] = {
            "rank": self._kill_rank,
            "raylet": self._kill_raylet,
            "head": self._lose_head,
            "mailbox": lambda: self._kill_actor("Mailbox", "the mailbox"),
            "controllers": lambda: self._kill_actor("LaneControllers", "the lanes' controllers"),
            "host": lambda: self._kill_actor("TrialHost", "the host of Tune's trials"),
            "driver": self._kill_driver,
            "drain": self._drain,
            "join": self._join,
            "link": self._cut_link,
            "s3": self._fail_s3,
            "disk": self._fill_disk,
        }
        if has_postgres:
            self._kinds["postgres"] = self._restart_postgres
        self._kinds = {kind: self._kinds[kind] for kind in only or self._kinds}
        self._deck: list[str] = []

    def pause(self, every_seconds: float) -> float:
        """Return the seconds until the next fault."""
        return every_seconds * self._random.uniform(0.5, 1.5)

    def strike(self) -> None:
        """Do the next fault that there is room for: all kinds come before one comes again."""
        if not self._nodes[0].has_ray():
            return  # the head is away, which is enough
        if not self._deck:
            self._deck = self._random.sample(sorted(self._kinds), len(self._kinds))
        kind = self._deck.pop()
        with suppress(psutil.NoSuchProcess):
            if what := self._kinds[kind]():
                self.happened.append(kind)
                self._say(f"fault {len(self.happened)}: {what}")

    def take_back(self, all_of_it: bool = False) -> None:
        """Undo what has lasted long enough."""
        now = time.monotonic()
        due = [undo for when, undo in self._later if all_of_it or when <= now]
        self._later = [each for each in self._later if not all_of_it and each[0] > now]
        for undo in due:
            undo()

    def _after(self, seconds: float, undo: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    def _up(self) -> list[Node]:
        return [node for node in self._nodes if node.has_ray()]

    def _worker(self) -> Node | None:
        """Return a node that may go: not the head, whose end is the cluster's, nor the last two."""
        up = self._up()
        others = [node for node in up if node.number > 1]
        return self._random.choice(others) if len(up) > 2 else None

    def _kill_rank(self) -> str:
        ranks = [(node, each) for node in self._nodes for each in node.find("TrainWorker")]
        if not ranks:
            return ""
        node, rank = self._random.choice(ranks)
        rank.send_signal(signal.SIGKILL)
        return f"a rank on {node.name} killed"

    def _kill_raylet(self) -> str:
        if (node := self._worker()) is None:
            return ""
        for raylet in node.raylets():
            raylet.send_signal(signal.SIGKILL)
        self._after(AWAY_SECONDS, lambda: self._back(node))
        return f"the raylet of {node.name} killed"

    def _lose_head(self) -> str:
        """End all that runs on the head; its cluster is gone, a new one comes up in its place."""
        head = self._nodes[0]
        if len(self._up()) < len(self._nodes):
            return ""
        _kill(head.processes())
        self._after(HEAD_SECONDS, self._cluster_back)
        return f"{head.name}, the head of the cluster, lost for {HEAD_SECONDS:.0f} s"

    def _cluster_back(self) -> None:
        self._nodes[0].start_ray()
        self._say("the head is back, with a new cluster")
        for node in self._nodes[1:]:
            self._rejoin(node)

    def _rejoin(self, node: Node, looks: int = 24) -> None:
        """As a supervisor does: start Ray anew once it has seen that its cluster is gone."""
        if not node.has_ray():
            self._back(node)
        elif looks:
            self._after(LOOK_AGAIN_SECONDS, lambda: self._rejoin(node, looks - 1))

    def _kill_actor(self, actor: str, what: str) -> str:
        for node in self._nodes:
            for process in node.find(f"ray::{actor}"):
                process.send_signal(signal.SIGKILL)
                return f"{what} on {node.name} killed"
        return ""

    def _kill_driver(self) -> str:
        assert self._tune.node is not None
        self._tune.kill()
        return f"the driver on {self._tune.node.name} killed"

    def _drain(self) -> str:
        if (node := self._worker()) is None:
            return ""
        (raylet,) = node.raylets()
        own = next(each for each in words_of(raylet) if each.startswith("--node_id="))
        why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        notice = ["--deadline-remaining-seconds", str(DRAIN_SECONDS)]
        which = ["--address", f"{SUBNET}.11:{RAY_PORT}", "--node-id", own.partition("=")[2]]
        self._nodes[0].run(*command("ray"), "drain-node", *which, *why, *notice)

        def go() -> None:
            for left in node.raylets():
                left.send_signal(signal.SIGKILL)
            self._after(AWAY_SECONDS, lambda: self._back(node))

        self._after(DRAIN_SECONDS, go)
        return f"{node.name} drained, {DRAIN_SECONDS} s of notice"

    def _join(self) -> str:
        if len(self._nodes) >= MOST_NODES:
            return ""
        self._nodes.append(self._new_node(len(self._nodes) + 1))
        self._nodes[-1].boot()
        self._nodes[-1].start_ray()
        return f"{self._nodes[-1].name} joins"

    def _cut_link(self) -> str:
        if (node := self._worker()) is None:
            return ""
        node.plug("down")
        self._after(AWAY_SECONDS, lambda: node.plug("up"))
        return f"the link of {node.name} cut for {AWAY_SECONDS:.0f} s"

    def _fail_s3(self) -> str:
        self._services.s3_fails.touch()
        self._after(AWAY_SECONDS, lambda: self._services.s3_fails.unlink(missing_ok=True))
        return f"S3 answers 500 for {AWAY_SECONDS:.0f} s"

    def _restart_postgres(self) -> str:
        postgres = self._services.postgres
        assert postgres is not None
        postgres.stop()
        self._after(POSTGRES_SECONDS, postgres.go_on)
        return f"Postgres is away for {POSTGRES_SECONDS:.0f} s"

    def _fill_disk(self) -> str:
        node = self._random.choice(self._up())
        _fill(file := node.disk / "cache" / "full")
        self._after(AWAY_SECONDS, lambda: file.unlink(missing_ok=True))
        return f"the cache's disk of {node.name} full for {AWAY_SECONDS:.0f} s"

    def _back(self, node: Node) -> None:
        if not self._nodes[0].has_ray():
            self._after(LOOK_AGAIN_SECONDS, lambda: self._back(node))
            return
        _kill(node.find("ray::", DAEMONS))  # one may outlive its raylet
        node.start_ray()
        self._say(f"{node.name} is back")


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as full, suppress(OSError):
        while True:
            os.write(full.fileno(), bytes(1 << 20))
