"""Ray nodes out of namespaces: each with its own network, host name, disks and processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from tests.processes import words_of

BRIDGE = "carray-chaos"
SUBNET = "10.77.0"
HOST = f"{SUBNET}.1"  # where the services are
RAY_PORT = 6379
CPUS = 2  # that Ray is told of each node
CACHE_MIB, SHARED_MEMORY_MIB, STORE_BYTES = 1000, 512, 150_000_000
BOOT = f"""
set -e
hostname "$1"
mount -t tmpfs -o size={SHARED_MEMORY_MIB}m none /dev/shm
mount --bind "$2" /srv
mount -t tmpfs -o size={CACHE_MIB}m none /srv/cache
mount --bind /srv/hosts /etc/hosts
exec "$3" -c "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.pause()"
"""
REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {
    "HOME": "/srv/home",
    "TMPDIR": "/srv/tmp",
    "CARRAY_CACHE": "/srv/cache",
    "PYTHONPATH": str(REPOSITORY),
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "chaos" * 8,
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PATH": os.environ.get("PATH", ""),
    "LANG": "C.UTF-8",
}


def why_not_here() -> str:
    """Return a sentence where this machine allows no such nodes; "" where it does."""
    lacking = [name for name in ("ip", "unshare", "nsenter") if not shutil.which(name)]
    if lacking:
        return f"{', '.join(lacking)} not found; Debian has them in iproute2 and util-linux"
    tries = (
        ["unshare", "--mount", "--uts", "--ipc", "--pid", "--net", "--fork", "true"],
        ["ip", "link", "add", BRIDGE, "type", "bridge"],
    )
    for words in tries:
        tried = subprocess.run(words, capture_output=True, text=True)
        if tried.returncode:
            return f"`{' '.join(words)}` is refused here: {tried.stderr.strip()}"
    ip("link", "del", BRIDGE)
    return ""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Network:
    """A bridge that nodes are plugged into, and this machine too."""

    def __enter__(self) -> Network:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{HOST}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        return self

    def __exit__(self, *error: object) -> None:
        ip("link", "del", BRIDGE)


class Node:
    """A machine: it is up as long as its first process lives; Ray's may come and go.

    Args:
        number: 1 is the head.
        folder: what becomes its disk.
        environment: of all that runs there, besides the usual.
    """

    def __init__(self, number: int, folder: Path, environment: dict[str, str]) -> None:
        self.number, self.name = number, f"node-{number}"
        self.address = f"{SUBNET}.{10 + number}"
        self._folder = folder / self.name
        self._environment = ENVIRONMENT | environment
        self._plug = f"chaos{number}"

    def boot(self) -> None:
        """Switch it on."""
        for name in ("home", "tmp", "cache"):
            (self._folder / name).mkdir(parents=True)
        hosts = f"127.0.0.1 localhost\n{self.address} {self.name}\n"
        (self._folder / "hosts").write_text(hosts)
        namespaces = ["--mount", "--uts", "--ipc", "--pid", "--net", "--mount-proc"]
        script = ["sh", "-c", BOOT, "sh", self.name, str(self._folder), sys.executable]
        words = ["unshare", *namespaces, "--fork", "--kill-child", *script]
        self._process = subprocess.Popen(words)
        while not (children := psutil.Process(self._process.pid).children()):
            time.sleep(0.01)
        self._first = children[0].pid
        while "signal.pause" not in " ".join(words_of(psutil.Process(self._first))):
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} didn't boot")
            time.sleep(0.01)
        inner = "eth0"
        ip("link", "add", self._plug, "type", "veth", "peer", inner, "netns", str(self._first))
        ip("link", "set", self._plug, "master", BRIDGE, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", inner)
        self.run("ip", "link", "set", inner, "up")

    @property
    def disk(self) -> Path:
        """Its /srv, as seen from outside; below it are `cache` and `ray`."""
        return Path(f"/proc/{self._first}/root/srv")

    def start(self, *words: str, log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """Start a command there; it has the node's folder of temporary files, not this one's."""
        inside = ["sh", "-c", 'cd /srv && exec "$@"', "sh", *words]
        return subprocess.Popen(
            ["nsenter", "--all", "--target", str(self._first), *inside],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def run(self, *words: str, seconds: float = 120) -> str:
        """Run a command there; return what it wrote, raise where it failed."""
        log = self._folder / "command.log"
        with log.open("wb") as file:
            code = self.start(*words, log=file).wait(seconds)
        said = log.read_text(errors="replace")
        if code:
            raise RuntimeError(f"{self.name}: {words[:4]} ended with {code}: {said[-800:]}")
        return said

    def start_ray(self, cpus: int = CPUS) -> None:
        """Start Ray, which is told of so many CPUs: of node 1 the cluster, else a node of it."""
        where = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"]
        if self.number > 1:
            where = [f"--address={SUBNET}.11:{RAY_PORT}"]
        own = [f"--node-ip-address={self.address}", "--temp-dir=/srv/ray"]
        size = [f"--num-cpus={cpus}", f"--object-store-memory={STORE_BYTES}"]
        self.run(*command("ray"), "start", *where, *own, *size, "--disable-usage-stats")

    def processes(self) -> list[psutil.Process]:
        """Return what runs there, but for its first process."""
        space, processes = _namespace(self._first), psutil.process_iter()
        there = [process for process in processes if _namespace(process.pid) == space]
        return [process for process in there if process.pid != self._first]

    def find(self, *words: str) -> list[psutil.Process]:
        """Return the processes there whose command line has one of the words."""
        return [
            process
            for process in self.processes()
            if any(word in " ".join(words_of(process)) for word in words)
        ]

    def has_ray(self) -> bool:
        return bool(self.raylets())

    def raylets(self) -> list[psutil.Process]:
        return [
            p for p in self.processes() if words_of(p)[:1] and words_of(p)[0].endswith("/raylet")
        ]

    def plug(self, state: str) -> None:
        """Set its link `up` or `down`."""
        ip("link", "set", self._plug, state)

    def end(self) -> None:
        """Switch it off; a namespace may outlive it for a while, and the link with it."""
        self._process.kill()
        self._process.wait()
        subprocess.run(["ip", "link", "del", self._plug], capture_output=True)


def command(name: str) -> Sequence[str]:
    """Return how a command of this environment is called."""
    return (str(Path(sys.executable).parent / name),)


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:  # it has ended
        return ""
