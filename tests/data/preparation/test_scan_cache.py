"""A scan that was interrupted goes on where it was, and trusts no file that has changed since."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.data.preparation.scan_cache import cache_path, num_cached
from carray.errors import DataError
from carray.typing import Advance
from tests.data.pictures import image_folder, picture, save

FEW = 3


@contextmanager
def interrupted(what: str, total: int) -> Iterator[Advance]:
    done = []

    def advance(count: int) -> None:
        done.append(count)
        if len(done) == FEW:
            raise KeyboardInterrupt

    yield advance


class Counted:
    """A progress that remembers how much there was to do."""

    def __init__(self) -> None:
        self.totals: list[int] = []

    @contextmanager
    def __call__(self, what: str, total: int) -> Iterator[Advance]:
        if what == "reading images":
            self.totals.append(total)
        yield lambda count: None


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "cars", {"a": 30, "b": 30})


@pytest.fixture
def begun(source: Path, tmp_path: Path) -> Path:
    """The log of a scan that was interrupted."""
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "data", progress=interrupted)
    assert not (tmp_path / "data").exists()
    log = cache_path(tmp_path / "data")
    assert FEW <= num_cached(log) <= 60
    return log


def test_an_interrupted_scan_goes_on_and_leaves_nothing(
    source: Path, begun: Path, tmp_path: Path
) -> None:
    counted, kept = Counted(), num_cached(begun)
    manifest = prepare(source, tmp_path / "data", progress=counted)
    assert counted.totals == [60 - kept]
    assert not begun.exists()
    assert manifest.hash == prepare(source, tmp_path / "whole").hash
    assert {path.name for path in tmp_path.iterdir()} == {"cars", "data", "whole"}
    assert manifest.images.drop(columns="path").equals(
        Manifest.load(tmp_path / "whole").images.drop(columns="path")
    )


def test_what_was_read_before_a_refusal_is_not_read_again(source: Path, tmp_path: Path) -> None:
    save(source / "c" / "only.jpg", picture(900))
    with pytest.raises(DataError, match="too few"):
        prepare(source, tmp_path / "data")
    counted = Counted()
    prepare(source, tmp_path / "data", val_size=0, blend_size=0, test_size=0, progress=counted)
    assert counted.totals == [0]


def test_changed_and_replaced_files_are_looked_at_again(source: Path, tmp_path: Path) -> None:
    save(source / "c" / "only.jpg", picture(900))
    with pytest.raises(DataError, match="too few"):
        prepare(source, tmp_path / "data")
    changed, touched, replaced = (source / "a" / f"{number:02d}.jpg" for number in (3, 4, 5))
    save(changed, picture(901, 60, 40))
    os.utime(touched, ns=(0, 0))
    state = replaced.stat()
    other = tmp_path / "other.jpg"
    other.write_bytes((source / "b" / "00.jpg").read_bytes().ljust(state.st_size, b"\0"))
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(replaced)
    counted = Counted()
    manifest = prepare(
        source, tmp_path / "data", val_size=0, blend_size=0, test_size=0, progress=counted
    )
    assert counted.totals == [3]
    row = manifest.images.set_index("image_id").loc["a/03.jpg"]
    assert (row["width"], row["height"]) == (60, 40)


def test_another_margin_is_another_picture(begun: Path, tmp_path: Path) -> None:
    from carray.data.preparation.scan import scan_images

    paths = sorted((tmp_path / "cars" / "a").iterdir())
    for box, margin in ((None, 0.5), ((1, 2, 30, 30), 0.1)):
        counted = Counted()
        scan_images(paths, [box] * 30, margin, counted, begun)
        assert counted.totals == [30]


def test_what_a_kill_or_a_crash_left_half_written_is_looked_at_again(
    source: Path, begun: Path, tmp_path: Path
) -> None:
    kept, size = num_cached(begun), begun.stat().st_size
    with begun.open("r+b") as file:
        file.seek(1000)
        file.write(bytes(50))  # in the first record
        file.truncate(size - 10)  # the last one
    counted = Counted()
    manifest = prepare(source, tmp_path / "data", progress=counted)
    assert counted.totals == [60 - (kept - 2)]
    assert manifest.hash == prepare(source, tmp_path / "whole").hash


def test_two_processes_do_not_share_a_log(source: Path, begun: Path, tmp_path: Path) -> None:
    with begun.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            prepare(source, tmp_path / "data")


def test_a_place_that_cannot_be_written_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't be written \(File exists\): choose"):
        prepare(source, tmp_path / "file" / "data")


HELD_UP = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from pathlib import Path
from carray.cli import main
from carray.data.preparation import scan

def held_up(path, *rest, look=scan.scan_image):
    while path.name == "zz.jpg" and not Path(sys.argv[-1]).with_name("go").exists():
        time.sleep(0.01)
    return look(path, *rest)

scan.scan_image = held_up
main()
"""


def test_ctrl_c_and_the_next_command_says_that_it_goes_on(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "cars", {"a": 8, "b": 8})
    (source / "b" / "zz.jpg").write_bytes(b"")  # whoever reads it waits: the scan is in its midst
    words = ["data", "prepare", str(source), "--json", "--out", str(tmp_path / "data")]
    log = cache_path(tmp_path / "data")
    running = subprocess.Popen([sys.executable, "-c", HELD_UP, *words])
    while num_cached(log) < 16:
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    (tmp_path / "go").touch()
    assert running.wait(timeout=60) == 130
    (source / "b" / "zz.jpg").unlink()
    command = [sys.executable, "-m", "carray", *words]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stderr.startswith("going on: 16 images were read before")
    assert json.loads(again.stdout)["images"] == 16
    assert not log.exists()
