"""A full disk is told from other errors, whoever wrote to it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from carray.disk import _size, disk_error
from carray.errors import DiskError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "has too little room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is over its quota"),
        (OSError(errno.EROFS, "Read-only file system"), "is read-only"),
        (
            SafetensorError("Error while serializing: I/O error: (os error 28)"),
            "has too little room",
        ),
        (
            RuntimeError("(sqlite3.OperationalError) database or disk is full"),
            "has too little room",
        ),
        (DiskError("the disk of x is full"), "the disk of x is full"),
    ],
)
def test_what_a_full_disk_makes_of_a_write_is_said_in_one_sentence(
    tmp_path: Path, error: Exception, said: str
) -> None:
    told = disk_error(error, tmp_path / "not" / "there")
    assert told is not None
    assert said in str(told)


def test_the_sentence_has_the_folder_the_numbers_and_the_cure(tmp_path: Path) -> None:
    refused = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "record.json"))
    told = str(disk_error(refused))
    assert told.startswith(f"the disk of {tmp_path} has too little room (")
    assert told.endswith("GiB free): free some")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ValueError("disk"), KeyError(28)])
def test_other_errors_say_nothing_of_a_disk(error: Exception) -> None:
    assert disk_error(error) is None


def test_a_cause_is_looked_for() -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert disk_error(error) is not None


def test_a_small_disk_has_its_free_part_told_from_the_whole() -> None:
    assert [_size(size) for size in (0, 900_000, 1_572_864, 40 * 2**20, 2**31)] == [
        "0 MiB",
        "0.9 MiB",
        "1.5 MiB",
        "40 MiB",
        "2.0 GiB",
    ]
