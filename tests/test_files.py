"""Folders replaced as a whole: a reader finds the old or the new one, whenever a writer died."""

from __future__ import annotations

import ast
import errno
import os
import resource
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from carray.errors import RecordError
from carray.files import (
    add_json_line,
    by_last_use,
    claimed,
    folder_bytes,
    map_array,
    read_array,
    read_json_lines,
    recovered,
    remove,
    reserve_disk_space,
    sqlite_file,
    sqlite_url,
    written_aside,
)
from carray.search.sampling.storage import Database


def write(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        aside.mkdir()
        (aside / "state").write_text(text)


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write(tmp_path / "checkpoint", text)
    assert (tmp_path / "checkpoint" / "state").read_text() == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_writer_killed_at_any_rename_leaves_one_of_the_two(
    tmp_path: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    write(path, "one")
    real, done = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        if renames < 2:
            with pytest.raises(KeyboardInterrupt):
                write(path, "two")
        else:
            write(path, "two")
    assert (recovered(path) / "state").read_text() == ("two" if renames == 2 else "one")
    (tmp_path / ".checkpoint.77-0123abcd").mkdir()  # of a writer killed before its renames
    remove(path)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_replaced_too(tmp_path: Path) -> None:
    path = tmp_path / "package"
    write(path, "one")
    path.rename(tmp_path / ".package.previous")
    write(path, "two")
    assert (path / "state").read_text() == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["package"]


def test_a_reader_that_recovers_between_a_live_writers_renames_does_not_cost_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "package"
    write(path, "one")
    real, readers = Path.replace, [path]

    def replace(self: Path, target: Path) -> Path:
        done = real(self, target)
        if target.name == ".package.previous" and readers:
            real(target, readers.pop())
        return done

    monkeypatch.setattr(Path, "replace", replace)
    write(path, "two")
    assert not readers
    assert (path / "state").read_text() == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["package"]


def test_a_lock_that_is_held_is_not_claimed_again(tmp_path: Path) -> None:
    with claimed(tmp_path / "lock") as first, claimed(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path / "lock") as third:
        assert third


def test_an_array_file_that_is_cut_short_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "logits.npz"
    assert read_array(file, "val") is None
    np.savez(file, val=np.arange(50))
    assert read_array(file, "val").tolist() == list(range(50))
    assert read_array(file, "test") is None
    whole = file.read_bytes()
    for kept in (0, 3, len(whole) // 2):
        file.write_bytes(whole[:kept])
        with pytest.raises(RecordError, match=r"logits.npz can't be read"):
            read_array(file, "val")


def test_threads_never_parse_two_headers_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "logits.npz", val=np.arange(50))
    np.save(tmp_path / "view.npy", np.arange(50))
    parse, parsing, most = ast.literal_eval, [], []

    def watched(text: str) -> object:
        parsing.append(text)
        most.append(len(parsing))
        time.sleep(0.005)
        parsing.pop()
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", watched)
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(read_array, tmp_path / "logits.npz", "val") for _ in range(8)]
        maps = [pool.submit(map_array, tmp_path / "view.npy") for _ in range(8)]
    assert all(each.result().sum() == 1225 for each in reads + maps)
    assert most == [1] * 16


@pytest.mark.parametrize("junk", [b"[1, \n[2, {}]\n", bytes(range(256))])
def test_lines_that_are_no_json_are_one_sentence(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "epochs.jsonl").write_bytes(junk)
    with pytest.raises(RecordError, match=r"epochs\.jsonl can't be read"):
        read_json_lines(tmp_path / "epochs.jsonl")


def test_a_line_that_a_full_disk_cuts_short_is_taken_back(tmp_path: Path) -> None:
    """Else the next line would be added to half a line, and no line after it could be read."""
    file = tmp_path / "epochs.jsonl"
    add_json_line(file, [1, "whole"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 5, before[1]))
    try:
        with pytest.raises(OSError, match="No space left on device"):
            add_json_line(file, [2, "cut short"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    add_json_line(file, [2, "again"])
    assert read_json_lines(file) == [[1, "whole"], [2, "again"]]


def test_a_mapped_file_has_its_room_before_it_is_filled(tmp_path: Path) -> None:
    file, size = tmp_path / "view.bin", 2**20
    np.memmap(file, np.uint8, "w+", shape=(size,))
    assert 512 * file.stat().st_blocks < size
    reserve_disk_space(file, size)
    assert 512 * file.stat().st_blocks >= size


def test_a_file_that_may_not_be_written_goes_by_its_own_name(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError, match=r"/picture\.png'$"),
        written_aside(tmp_path / "picture.png") as aside,
    ):
        raise PermissionError(13, "Permission denied", str(aside))


def test_a_folder_in_a_place_that_may_not_be_written_goes_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system names what was to be renamed, and to what."""
    (tmp_path / "model").mkdir()
    refused = OSError(errno.EACCES, "Permission denied", "MODEL", None, "BESIDE")

    def replace(path: Path, target: Path) -> None:
        refused.filename, refused.filename2 = str(path), str(target)
        raise refused

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(PermissionError) as raised, written_aside(tmp_path / "model") as aside:
        aside.mkdir()
    assert {raised.value.filename, raised.value.filename2} == {str(tmp_path / "model")}


def test_a_file_that_goes_while_a_folder_is_measured_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.pt").write_bytes(bytes(100))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(Path, "is_file", lambda self: True)  # it was, just before
    assert folder_bytes(tmp_path) == 100


def test_a_folder_that_another_process_removes_is_not_asked_for_its_last_use(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("newer", "older")):
        mark = tmp_path / name / "used"
        mark.parent.mkdir()
        mark.touch()
        os.utime(mark, (1000 - number, 1000 - number))
    marks = [tmp_path / name / "used" for name in ("newer", "removed", "older")]
    assert [folder.name for folder in by_last_use(marks)] == ["older", "newer"]


@pytest.mark.parametrize("name", ["my%20cars", "what?", "#1 100% & ü's"])
def test_a_database_is_opened_where_its_folder_is_whatever_it_is_called(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / name / "optuna.db"
    file.parent.mkdir()
    Database(sqlite_url(file)).close()
    assert file.exists()
    assert sqlite_file(sqlite_url(file)) == file


def test_the_bytes_of_a_folder_that_comes_and_goes_are_counted(tmp_path: Path) -> None:
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            (tmp_path / "a" / "b").mkdir(parents=True)
            (tmp_path / "a" / "b" / "file").write_bytes(b"x")
            shutil.rmtree(tmp_path / "a")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert {folder_bytes(tmp_path / "a") for _ in range(3000)} <= {0, 1}
    finally:
        ended.set()
        thread.join()


def test_a_write_to_a_full_disk_names_the_file_that_was_to_be(tmp_path: Path) -> None:
    """Linux's own full disk; a write to it doesn't say where it went."""
    wanted = tmp_path / "wanted.bin"
    with pytest.raises(OSError, match="No space left on device") as raised:  # noqa: SIM117
        with written_aside(wanted) as aside:
            aside.symlink_to("/dev/full")
            with aside.open("wb") as file:
                file.write(b"much")
    assert raised.value.filename == str(wanted)
    assert list(tmp_path.iterdir()) == []
