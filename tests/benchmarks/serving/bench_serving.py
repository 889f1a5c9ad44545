"""`carray serve` under load, against a plain FastAPI + torch loop of the same model.

    python tests/benchmarks/serving/bench_serving.py [PACKAGE] [--photos DIR] [--clients 64]

PACKAGE is a model's folder with one member, PHOTOS any images; toy cars where none are given. Each
round serves the model both ways, in turn and on the same cores, to clients that send one image,
wait for its answer and send the next; they have a core of their own. In each of carray's runs a
second version is put beside the first half-way. Then bad uploads are sent. Exit code 1 if a request
got anything but an answer or a 429, an upload no 4xx with a sentence, or a version no answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from carray.api import toy_data
from carray.inference.package import write_package
from carray.runs_folder import RunsFolder
from carray.training.train import train

NAME = "bench"
PLAIN = Path(__file__).with_name("plain_server.py")
PATIENCE_SECONDS = 120.0
BOUNDARY = "a-part-of-this-benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path, nargs="?")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        package, photos = asked.package, asked.photos
        if package is None:
            package, photos = toy_package(root)
        bodies = [form_of(file.name, file.read_bytes()) for file in images_under(photos)]
        own, theirs = divided_cores()
        os.sched_setaffinity(0, own)
        print(f"{package.name}, {len(bodies)} photographs, {asked.clients} clients", flush=True)
        print(
            f"server on cores {sorted(theirs)}, clients on {sorted(own)}; {asked.seconds:g} s each"
        )
        bench = Bench(package, bodies, asked.clients, asked.seconds, theirs)
        rounds = [(bench.carray(root / f"runs{n}"), bench.plain()) for n in range(asked.rounds)]
        show_ratio("images/s", [ours.rate / plain.rate for ours, plain in rounds])
        show_ratio("images of a CPU second", [plain.cpu_ms / ours.cpu_ms for ours, plain in rounds])
        complaints = [why for ours, _ in rounds for why in ours.complaints()]
        complaints += bench.bad_uploads(root / "bad")
    sys.exit("\n".join(complaints) if complaints else 0)


def show_ratio(what: str, ratios: Sequence[float]) -> None:
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    print(f"carray / plain, {what}: x{middle:.2f} ({least:.2f} to {most:.2f})", flush=True)


def toy_package(root: Path) -> tuple[Path, Path]:
    """Return a package of a network trained for an epoch on toy cars, and the images."""
    data = toy_data(root / "toys")
    recipe = {"backbone": "mobilenetv2_100", "pretrained": False, "image_size": 128, "epochs": 1}
    train(data, recipe, runs=root / "trained")
    study = RunsFolder(root / "trained").study("single")
    write_package(root / "models" / "toy", study.record(), [study.trial(0)])
    return root / "models" / "toy", root / "toys"


def images_under(folder: Path, most: int = 200) -> list[Path]:
    found = sorted(file for file in folder.rglob("*") if file.suffix in (".jpg", ".png"))
    return found[:: max(1, len(found) // most)]


def divided_cores() -> tuple[set[int], set[int]]:
    """Return the cores of the clients and of the server."""
    cores = sorted(os.sched_getaffinity(0))
    return (set(cores[-1:]), set(cores[:-1])) if len(cores) > 1 else (set(cores), set(cores))


def form_of(name: str, data: bytes) -> bytes:
    """Return one file as a multipart form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n'
    kind = "Content-Type: application/octet-stream\r\n\r\n"
    return (head + kind).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


@dataclass
class Load:
    """What became of the requests of one run."""

    what: str
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    """Of each answered request, in seconds."""
    cpu_seconds: float = 0.0
    """Of the server."""

    @property
    def rate(self) -> float:
        """Answered images a second."""
        return self.statuses["200"] / self.seconds

    @property
    def cpu_ms(self) -> float:
        """The server's CPU time for an image; other work on its cores hardly changes it."""
        return 1000 * self.cpu_seconds / self.statuses["200"]

    def show(self) -> None:
        p50, p95, worst = (1000 * quantile(self.times, share) for share in (0.5, 0.95, 1.0))
        print(
            f"{self.what:<8}{self.rate:>8.1f} images/s  {self.cpu_ms:>6.1f} ms of CPU each  "
            f"p50 {p50:>5.0f} ms  p95 {p95:>5.0f} ms  max {worst:>5.0f} ms  {dict(self.statuses)}  "
            f"versions {dict(self.versions)}",
            flush=True,
        )

    def complaints(self) -> list[str]:
        wrong = {status: n for status, n in self.statuses.items() if status not in ("200", "429")}
        said = [f"{self.what}: {wrong}"] if wrong else []
        return said + ([] if set(self.versions) == {1, 2} else [f"versions {self.versions}"])


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Bench:
    """Serves one package in two ways, to the same clients."""

    def __init__(
        self, package: Path, bodies: Sequence[bytes], clients: int, seconds: float, cores: set[int]
    ) -> None:
        self._package, self._bodies, self._cores = package, bodies, cores
        self._clients, self._seconds = clients, seconds

    def carray(self, runs: Path) -> Load:
        """Load `carray serve`; a second version comes half-way."""
        with self._carray(runs) as (url, server):
            return asyncio.run(self._load(Load("carray"), url, server, runs / "models"))

    def plain(self) -> Load:
        """Load the plain loop."""
        with self._served([str(PLAIN), str(self._package)]) as (url, server):
            return asyncio.run(self._load(Load("plain"), url, server, None))

    def bad_uploads(self, runs: Path) -> list[str]:
        """Send what a server must refuse; return what it didn't."""
        with self._carray(runs) as (url, _):
            return asyncio.run(send_bad(url))

    @contextmanager
    def _carray(self, runs: Path) -> Iterator[tuple[str, psutil.Process]]:
        shutil.copytree(self._package, runs / "models" / NAME)
        command = ["-m", "carray", "serve", NAME, "--runs", str(runs), "--device", "cpu", "--port"]
        with self._served(command) as served:
            yield served

    @contextmanager
    def _served(self, command: Sequence[str]) -> Iterator[tuple[str, psutil.Process]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        cores = len(self._cores)
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, self._cores)), sys.executable, *command, str(port)],
            env={**os.environ, "OMP_NUM_THREADS": str(cores)},
            stdout=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            asyncio.run(ready(f"{url}/readyz"))
            yield f"{url}/v1/predict", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)

    async def _load(
        self, load: Load, url: str, server: psutil.Process, models: Path | None
    ) -> Load:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await self._client(load, session, url, 0, time.perf_counter() + 2)  # warm-up
            load.statuses.clear()
            load.versions.clear()
            load.times.clear()
            start, cpu = time.perf_counter(), sum(server.cpu_times()[:2])
            tasks = [
                self._client(load, session, url, number, start + self._seconds)
                for number in range(self._clients)
            ]
            if models is not None:
                tasks.append(self._put_version(models))
            await asyncio.gather(*tasks)
            load.seconds = time.perf_counter() - start
            load.cpu_seconds = sum(server.cpu_times()[:2]) - cpu
        load.show()
        return load

    async def _client(
        self, load: Load, session: aiohttp.ClientSession, url: str, number: int, until: float
    ) -> None:
        headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        while (start := time.perf_counter()) < until:
            body = self._bodies[number % len(self._bodies)]
            number += self._clients
            try:
                async with session.post(url, data=body, headers=headers) as answer:
                    said = json.loads(await answer.read())
            except (aiohttp.ClientError, OSError, ValueError) as error:
                load.statuses[type(error).__name__] += 1
                continue
            load.statuses[str(answer.status)] += 1
            if answer.status == 200:
                load.times.append(time.perf_counter() - start)
                load.versions[said.get("version", 1)] += 1
            else:
                await asyncio.sleep(float(answer.headers.get("retry-after", 1)))

    async def _put_version(self, models: Path) -> None:
        await asyncio.sleep(self._seconds / 2)
        shutil.copytree(models / NAME, models / ".aside")
        (models / ".aside").rename(models / f"{NAME}@2")


async def ready(url: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < until:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
    raise TimeoutError(f"{url} isn't ready after {PATIENCE_SECONDS:g} s")


def bomb() -> bytes:
    """Return a PNG of half a megabyte that is 20,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    side = 20_000
    packer, row = zlib.compressobj(9), bytes(1 + side)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
BAD = {
    "text": ("a.txt", b"hello"),
    "a decompression bomb": ("a.png", bomb()),
    "0 bytes": ("a.jpg", b""),
    "200 MB": ("a.jpg", bytes(200 * 10**6)),
    "SVG": ("a.svg", SVG),
    "a name with a path": ("../../../etc/cron.d/a.jpg", b"hello"),
}


async def send_bad(url: str) -> list[str]:
    """Send each bad upload; print what is said of it; return what isn't refused in a sentence."""
    wrong = []
    for what, (name, data) in BAD.items():
        for form in ("multipart", "chunked"):
            said = await send(url, form_of(name, data), form == "chunked")
            print(f"{what + ', ' + form:<34}{said}", flush=True)
            if not said.startswith("4"):
                wrong.append(f"{what}, {form}: {said}")
    return wrong


async def send(url: str, body: bytes, is_chunked: bool) -> str:
    """Return the status and the sentence; why there is none, where the connection broke."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    start = time.perf_counter()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=pieces() if is_chunked else body, headers=headers) as answer,
        ):
            detail = (await answer.json())["detail"]
            return f"{answer.status} after {time.perf_counter() - start:.2f} s: {detail}"
    except (aiohttp.ClientError, OSError) as error:
        return f"no answer: {error!r}"


if __name__ == "__main__":
    main()
