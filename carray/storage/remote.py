"""`RemoteFolder`: a folder at a URL, reached through pyarrow's filesystems.

`s3://`, `gs://`, `abfs://` and `file://` come with pyarrow, which Ray brings. Keys, profile, region
and endpoint are found as AWS's own tools find them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...
"""

from __future__ import annotations

import os
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from carray.errors import ConfigError, ServerFault, StorageError
from carray.files import written_aside
from carray.masking import masked
from carray.typing import Advance

T = TypeVar("T")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
KEYS = re.compile(r"://[^\s/:@]*:\S*@")
CHUNK_BYTES = 8 * 2**20
TAR_BYTES = 64 * 2**10  # its rest is copied at each small read
SILENCE_SECONDS, CONNECT_SECONDS, ATTEMPTS = 20.0, 5.0, 4  # of a request to S3
RANGES_AT_ONCE = 8  # of one large file, read side by side
WITH_FOLDERS = ("local", "hdfs", "mock")  # kinds of filesystems that want folders made
PATIENCE_SECONDS, PAUSE_SECONDS = 60.0, 2.0  # of `patiently`
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CURE = (
    "check the bucket's name, the keys (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE) and, for a server of your own, AWS_ENDPOINT_URL"
)

LATER = "that is a fault of the server's own; type the same command later"


def is_url(path: str | os.PathLike[str]) -> bool:
    """Say whether `path` is a URL, as in `s3://bucket/runs`."""
    return bool(URL.match(os.fspath(path)))


@dataclass(frozen=True)
class FileStamp:
    """What tells one version of a file from another."""

    size: int
    """Bytes."""
    changed_at: float
    """Unix time by the clock of whoever keeps it, seconds."""


class RemoteFolder:
    """A folder at a URL; files have names relative to it, as in `studies/s/study.json`.

    A reader finds the whole file, the one before, or none. Every method raises StorageError where
    the URL can't be reached or refuses; making one raises ConfigError where it holds keys, which
    would be written down with it.

    Args:
        url: of the folder.
        attempts: at each request to S3, with pauses of up to seconds; default: `ATTEMPTS`.
    """

    def __init__(self, url: str, attempts: int | None = None) -> None:
        if KEYS.search(url):
            raise ConfigError(
                f"{masked(url)} holds keys: leave them out, and set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        self.url, self._attempts = url.rstrip("/"), attempts

    def __str__(self) -> str:
        return masked(self.url)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        import pyarrow.fs

        with self._translated():
            filesystem, path = pyarrow.fs.FileSystem.from_uri(self.url)
            if filesystem.type_name == "s3":
                filesystem = self._patient(filesystem.region)
            return filesystem, path.rstrip("/")

    def _patient(self, region: str) -> Any:
        """Return the filesystem of an `s3://` URL; by default one gives up after 3 s of silence."""
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

        asked = dict(parse_qsl(urlsplit(self.url).query))
        named = (os.environ.get(name) for name in ENDPOINT_VARIABLES)
        endpoint = asked.get("endpoint_override") or next(filter(None, named), None)
        return S3FileSystem(
            region=region,
            request_timeout=SILENCE_SECONDS,
            connect_timeout=CONNECT_SECONDS,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=self._attempts or ATTEMPTS),
            scheme=asked.get("scheme"),
            endpoint_override=endpoint,
            allow_delayed_open=True,  # a small file is one request, not three
        )

    def _path(self, name: str) -> str:
        return f"{self._place[1]}/{name}".rstrip("/")

    def files(self, below: str = "") -> dict[str, FileStamp]:
        """Return every file below a folder, by name; none where there is no such folder."""
        import pyarrow.fs

        filesystem, base = self._place
        selector = pyarrow.fs.FileSelector(self._path(below), allow_not_found=True, recursive=True)
        with self._translated():
            found = filesystem.get_file_info(selector)
        return {info.path[len(base) + 1 :]: _stamp_of(info) for info in found if info.is_file}

    def stamp(self, name: str) -> FileStamp | None:
        """Return what tells a file's version; None where there is no such file."""
        with self._translated():
            info = self._place[0].get_file_info(self._path(name))
        return _stamp_of(info) if info.is_file else None

    def read(self, name: str) -> bytes | None:
        """Return a small file's content; None where there is no such file."""
        try:
            with self._translated(), self._place[0].open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file."""
        with self._written(name) as stream:
            stream.write(content)

    def put(self, file: Path, name: str, advance: Advance = lambda count: None) -> None:
        """Replace a file with a local one; `advance` is told of bytes."""
        with file.open("rb") as source, self._written(name) as stream:
            while chunk := source.read(CHUNK_BYTES):
                stream.write(chunk)
                advance(len(chunk))

    def put_folder(self, folder: Path, name: str) -> None:
        """Replace a file with a local folder's files, as one archive."""
        with (
            self._written(name) as stream,
            tarfile.open(fileobj=stream, mode="w|", bufsize=TAR_BYTES) as archive,
        ):
            for file in sorted(folder.iterdir()):
                archive.add(file, file.name)

    def fetch(self, name: str, into: Path, advance: Advance = lambda count: None) -> None:
        """Copy a file to `into`, which gets its time too; raises FileNotFoundError without one."""
        stamp = self.stamp(name)  # of this version, or an older one: then it is fetched again
        with self._translated(), self._place[0].open_input_file(self._path(name)) as source:
            size = source.size()

            def copy(start: int) -> None:
                chunk = source.read_at(min(CHUNK_BYTES, size - start), start)
                os.pwrite(descriptor, chunk, start)
                advance(len(chunk))

            with written_aside(into) as aside:
                descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    with ThreadPoolExecutor(RANGES_AT_ONCE) as pool:
                        list(pool.map(copy, range(0, size, CHUNK_BYTES)))
                finally:
                    os.close(descriptor)
        if stamp:
            os.utime(into, (stamp.changed_at, stamp.changed_at))

    def fetch_folder(self, name: str, into: Path) -> bool:
        """Unpack an archive into folder `into`; say whether there is a whole one."""
        try:
            with (
                self._translated(),
                self._place[0].open_input_stream(
                    self._path(name), buffer_size=CHUNK_BYTES
                ) as stream,
                written_aside(into) as aside,
                tarfile.open(fileobj=stream, mode="r|", bufsize=TAR_BYTES) as archive,
            ):
                archive.extractall(aside, filter="data")
        except (FileNotFoundError, tarfile.TarError):
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, there or not."""
        with self._translated():
            try:
                self._place[0].delete_file(self._path(name))
            except FileNotFoundError:
                return

    @contextmanager
    def _written(self, name: str) -> Iterator[Any]:
        """Yield a stream; what was written takes the file's place at its end.

        A store of objects does that by itself. Where it refuses, or this process is killed, the
        file before stays. Any other error leaves none: closing the stream, which can't be broken
        off, has made a file of a part.
        """
        filesystem, _ = self._place
        path, aside = self._path(name), ""
        with self._translated():
            if filesystem.type_name in WITH_FOLDERS:
                filesystem.create_dir(path.rpartition("/")[0], recursive=True)
                aside = f"{path}.{os.getpid()}-{threading.get_ident()}.part"
            stream, is_there = filesystem.open_output_stream(aside or path), bool(aside)
            try:
                try:
                    yield stream
                finally:
                    stream.close()
                    is_there = True
                if aside:
                    filesystem.move(aside, path)
            except BaseException:
                if is_there:
                    with suppress(OSError):
                        filesystem.delete_file(aside or path)
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in one sentence what the store refuses; a file that isn't there stays that."""
        import pyarrow

        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except (OSError, pyarrow.ArrowException) as error:
            said = _said(error)
            if re.search(r"HTTP status 5\d\d", said):
                raise ServerFault(f"{self} can't be used ({said}): {LATER}") from error
            raise StorageError(f"{self} can't be used ({said}): {CURE}") from error


def patiently(work: Callable[[], T]) -> T:
    """Do `work`, again and again for a minute where a URL fails it: what costs hours asks twice.

    Raises:
        StorageError: the URL fails for longer.
    """
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return work()
        except StorageError:
            if time.monotonic() > give_up_at:
                raise
        time.sleep(PAUSE_SECONDS)


def _stamp_of(info: Any) -> FileStamp:
    return FileStamp(info.size, info.mtime_ns / 1e9)


def _said(error: Exception) -> str:
    """Return the telling part of what AWS's library says: `NO_SUCH_BUCKET ...`."""
    said = " ".join(str(error).split())
    told = re.search(r"AWS Error (.*?)(?: \(Request ID|; Details|$)", said)
    return (told[1] if told else said)[:160]
