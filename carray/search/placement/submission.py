"""`carray tune` as a job of a cluster that this machine is no node of: what is sent, and how.

carray's own code goes with the job, and the small files that its options name; data, runs and
weights don't: they are at URLs, or at paths that the cluster has.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from carray.errors import ConfigError, PlanError, counted
from carray.search.placement.ray_cluster import knock, token_error
from carray.storage.remote import is_url

OWN = Path(__file__).resolve().parents[2]  # carray's own folder
SENT_OPTIONS = ("--space", "--start-from")  # whose values may be files of this machine
PATH_OPTIONS = ("--runs", "--weights")  # whose values are the cluster's
MOST_BYTES = 16 * 2**20  # of one file: a job's folder is no way for data
RUNS = '"${CARRAY_RUNS:-$HOME/carray}"'  # on the head
MIB = 2**20


@dataclass(frozen=True)
class Package:
    """A folder that goes with a job, and what the job runs in it."""

    folder: Path
    entrypoint: str

    @property
    def files(self) -> list[tuple[int, str]]:
        """(bytes, name) of all that is sent, the largest first."""
        found = (file for file in self.folder.rglob("*") if file.is_file())
        sizes = [(file.stat().st_size, file.relative_to(self.folder).as_posix()) for file in found]
        return sorted(sizes, reverse=True)

    def lines(self, most: int = 3) -> list[str]:
        """Say how much is sent, and the largest files of it."""
        files = self.files
        total = sum(size for size, _ in files) / MIB
        largest = [f"  {size / MIB:6.2f} MiB  {name}" for size, name in files[:most]]
        return [f"sends {counted(len(files), 'file')}, {total:.2f} MiB; the largest:", *largest]


@contextmanager
def packed(data: str, words: Sequence[str]) -> Iterator[Package]:
    """Put together what `carray tune DATA WORDS` needs on the cluster; gone in the end.

    Raises:
        ConfigError: it names data or a folder that would not be there.
    """
    _check_path("the data set", data)
    with TemporaryDirectory(prefix="carray-job-") as made:
        folder = Path(made)
        sent = list(_sent(_split(words), folder))
        _copy_code(folder)
        runs = "" if "--runs" in sent else f" --runs {RUNS}"
        yield Package(folder, f"python -m carray tune {shlex.join([data, *sent])}{runs}")


def _copy_code(folder: Path) -> None:
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(OWN, folder / OWN.name, ignore=left_out)
    spaces = OWN.parent / "search_spaces"  # in a wheel they are in the package
    if spaces.is_dir() and not (OWN / spaces.name).is_dir():
        shutil.copytree(spaces, folder / spaces.name, ignore=left_out)


def submit(address: str, package: Package) -> str:
    """Send a job to the cluster whose dashboard is at `address`; return its id.

    Raises:
        PlanError: the cluster can't be reached, or refuses.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    where = address if "://" in address else f"http://{address}"
    try:
        knock(where.partition("://")[2].partition("/")[0])
        client = JobSubmissionClient(where)
        environment = {"working_dir": str(package.folder)}
        job: str = client.submit_job(entrypoint=package.entrypoint, runtime_env=environment)
        return job
    except AuthenticationError:
        raise token_error(where) from None
    except (OSError, RuntimeError, ConnectionError) as error:
        said = " ".join(str(error).split())[:200]
        raise PlanError(
            f"no job can be sent to {where} ({said}): give the address of the head's dashboard, "
            "as in http://HEAD:8265"
        ) from None


def follow_lines(address: str, job: str, command: str) -> list[str]:
    """Say how a job is followed, stopped and gone on with."""
    at = f"--address {shlex.quote(address)}"
    return [
        f"follow: ray job logs --follow {at} {job}",
        f"stop:   ray job stop {at} {job}",
        f"resume: {command}",
    ]


def _check_path(what: str, value: str) -> None:
    """Refuse a path that only this machine would understand."""
    if not is_url(value) and not Path(value).is_absolute():
        raise ConfigError(
            f"{what} {value!r} doesn't travel with a job: give its URL (`carray data push` puts "
            "data at one), or the absolute path that the cluster's head has"
        )


def _split(words: Sequence[str]) -> Iterator[str]:
    """Yield words, `--space=x` as two."""
    for word in words:
        name, joined, value = word.partition("=")
        yield from (name, value) if joined and name in (*SENT_OPTIONS, *PATH_OPTIONS) else (word,)


def _sent(words: Iterable[str], folder: Path) -> Iterator[str]:
    """Yield words as the job has them; small files that options name go into its folder."""
    option = ""
    for word in words:
        if option in PATH_OPTIONS:
            _check_path(option, word)
        file = Path(word)
        is_sent = option in SENT_OPTIONS and file.exists()
        if is_sent:
            _check_small(option, file)
            shutil.copyfile(file, folder / file.name)
        yield file.name if is_sent else word
        option = word


def _check_small(option: str, file: Path) -> None:
    if file.is_dir():
        raise ConfigError(f"{option} {file} is a folder, which doesn't travel with a job")
    if (size := file.stat().st_size) > MOST_BYTES:
        raise ConfigError(
            f"{option} {file} has {size / MIB:.0f} MiB, what travels with a job at most "
            f"{MOST_BYTES / MIB:.0f}: put it where the cluster finds it"
        )
