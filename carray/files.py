"""Write aside, then rename: a reader never sees half a file."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, TextIO
from urllib.parse import unquote
from zipfile import BadZipFile, ZipFile

from filelock import FileLock, Timeout

from carray.errors import ConfigError, RecordError

SQLITE = "sqlite:///"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# NumPy parses an array's header as Python; before 3.11.8, two threads that parse at once fail
# (https://github.com/python/cpython/issues/106905).
_HEADERS = Lock()


def absolute(path: str | os.PathLike[str] | None) -> str | None:
    """Return `path` as processes in other folders find it; None stays None."""
    return None if path is None else str(Path(path).expanduser().resolve())


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or folder to; rename it to `path` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        if aside.is_dir() and recovered(path).is_dir():
            _swap(aside, path)
        else:
            aside.replace(path)
    except OSError as error:
        own = (str(aside), str(_previous(path)))
        if error.filename is None and error.errno in NO_ROOM:  # as of a write
            error.filename = str(path)
        if any(str(name).startswith(own) for name in (error.filename, error.filename2)):
            error.filename = str(path)  # the name that anybody knows
            if error.filename2 is not None:  # of a rename
                error.filename2 = str(path)
        raise
    finally:
        _remove(aside)


def _swap(aside: Path, path: Path) -> None:
    """Put folder `aside` in the place of `path`; whoever is killed here leaves one of the two."""
    previous = _previous(path)
    while aside.is_dir():
        shutil.rmtree(previous, ignore_errors=True)
        path.replace(previous)
        try:
            aside.replace(path)
        except OSError:
            if not path.is_dir():  # else a reader put it back between the renames: once more
                raise
    shutil.rmtree(previous, ignore_errors=True)


def recovered(path: Path) -> Path:
    """Return folder `path`, put back first where a writer was killed between its two renames."""
    if not path.exists():
        with suppress(OSError):  # there is none, or another rank was faster
            _previous(path).replace(path)
    return path


def recover_folders(parent: Path) -> None:
    """Put back every folder below `parent` whose writer was killed between its two renames."""
    for previous in parent.glob(".*.previous"):
        recovered(previous.with_name(previous.name.removeprefix(".").removesuffix(".previous")))


def check_target(path: Path) -> None:
    """Refuse, before the work begins, a file that could not be written at its end.

    Raises:
        ConfigError: `path` is a folder, or lies where this user may not write.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, and a file is to be written: name one in it")
    parent = next(each for each in path.absolute().parents if each.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise ConfigError(f"{path} can't be written: {parent} is no folder that you may write to")


def remove(path: Path) -> None:
    """Remove a file or a folder, there or not, and what killed writers may have left of it."""
    _remove(path)
    remove_leftovers(path)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers left beside the file or folder `path`; nobody may write it now."""
    for each in path.parent.glob(f".{escape(path.name)}.*"):
        _remove(each)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `file` against other processes; the system frees it if the holder dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file):
        yield


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Hold the lock `file` if no other process does; yield whether it is held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(file).acquire(blocking=False)
    except Timeout:
        yield False
    else:
        with held:
            yield True


def is_held(lock: Path) -> bool:
    """Say whether a process holds a lock; it does where that can't be asked, as of another user."""
    try:
        with claimed(lock) as is_free:
            return not is_free
    except OSError:
        return True


def reserve_disk_space(file: Path, size: int) -> None:
    """Take the disk's room for `file` now: a mapped page that finds none kills the process.

    Raises:
        OSError: there is none.
    """
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Replace the file `path` with a table, UTF-8, its head first, at once or not at all."""
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` with `text`, UTF-8, at once or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def add_json_line(path: Path, value: Any) -> None:
    """Add a line to the file `path`, in one call to the system.

    A writer that is killed here leaves a line without an end, which `read_json_lines` skips; so one
    process alone adds to a file, and the next one begins another.
    """
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, line) < len(line):  # the disk was full in the middle
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def read_json_lines(path: Path) -> list[Any]:
    """Return the value of every whole line of the file `path`; none where there is no file.

    Raises:
        RecordError: a whole line is no JSON.
    """
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise RecordError(f"{path} can't be read: {error}") from None


def read_json(path: Path) -> Any:
    """Read JSON; raises RecordError with the path where it can't be."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} can't be read: {error}") from None


def write_json(path: Path, value: Any) -> None:
    """Replace the file `path` with `value` as JSON; every script stays readable."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_array(file: Path, name: str) -> Any:
    """Return an array of the .npz file `file`; None where the file, or that array, isn't there.

    Raises:
        RecordError: the file is cut short or broken.
    """
    import numpy as np

    try:
        with file.open("rb") as opened, ZipFile(opened) as arrays:
            if f"{name}.npy" not in arrays.namelist():
                return None
            array = BytesIO(arrays.read(f"{name}.npy"))
        with _HEADERS:
            return np.lib.format.read_array(array, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise RecordError(f"{file} can't be read ({error}): move it away") from None


def map_array(file: Path) -> Any:
    """Return the array of the .npy file `file`, mapped; None where it isn't there or is broken."""
    import numpy as np

    try:
        with _HEADERS:
            return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Replace the .npz file `path` with {name: array}, at once or not at all."""
    import numpy as np

    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)


def sqlite_url(file: Path) -> str:
    """Return the URL of a database file as SQLAlchemy reads it, who takes `%20` for a space."""
    return SQLITE + str(file).replace("%", "%25").replace("?", "%3F")


def sqlite_file(url: str) -> Path:
    """Return the file of a database's URL; of any other URL a path that names no file."""
    return Path(unquote(url.removeprefix(SQLITE)))


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below `folder`; 0 where there is none."""
    total = 0
    for parent, _, names in os.walk(folder):  # which passes over folders that go meanwhile
        for name in names:
            with suppress(FileNotFoundError):  # gone meanwhile
                total += Path(parent, name).stat().st_size
    return total


def by_last_use(marks: Iterable[Path]) -> list[Path]:
    """Return the folders of files that are touched at each use, the one used longest ago first."""
    times = {}
    for mark in marks:
        with suppress(FileNotFoundError):  # another process made room, too
            times[mark.parent] = mark.stat().st_mtime
    return sorted(times, key=times.__getitem__)


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def hush(stream: TextIO) -> None:
    """Let what a stream holds go nowhere: nobody reads it, and Python writes it at its end."""
    with suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
