"""What holds for every file of the project."""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    *("pyproject.toml", "requirements.lock", "Makefile", "README.md", "LICENSE"),
    *("carray", "search_spaces", "jobs", "dashboards", "tests"),
}
MOST_LINES = 400  # a module is split near 300
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|Users|work|mnt)/[\w.-]+")
DOWNLOAD_HOSTS = re.compile(
    r"pythonhosted\.org|download\.pytorch\.org|fbaipublicfiles|huggingface\.co|hf\.co\b"
    r"|raw\.githubusercontent|storage\.googleapis|amazonaws\.com"
)

CONFLICT = re.compile(r"<{7} |={7}$|>{7} ")  # what a merge leaves


def tracked() -> dict[Path, int]:
    """{path below the root: mode} of what git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    entries = [entry.partition("\t") for entry in listed.stdout.split("\0") if entry]
    return {Path(name): int(stage.split()[0], 8) for stage, _, name in entries}


FILES = [file for file in tracked() if (ROOT / file).is_file()]
MODULES = [file for file in FILES if file.suffix == ".py" and file.parts[0] in ("carray", "jobs")]


def texts() -> list[tuple[Path, str]]:
    read = [
        (file, (ROOT / file).read_bytes()) for file in FILES if file != Path("tests/test_style.py")
    ]
    return [(file, data.decode()) for file, data in read if b"\0" not in data]


def test_the_top_level_is_what_it_should_be() -> None:
    names = {file.parts[0] for file in FILES}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize(
    "pattern", [MACHINE_PATH, DOWNLOAD_HOSTS, CONFLICT], ids=["paths", "hosts", "conflicts"]
)
def test_no_file_holds_what_belongs_to_one_machine_or_to_a_merge(
    pattern: re.Pattern[str],
) -> None:
    found = [
        f"{file}:{number}: {line.strip()[:80]}"
        for file, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_the_lock_has_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    pinned = re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==", text, flags=re.MULTILINE)
    assert len(pinned) > 100
    assert text.count("--hash=sha256:") > len(pinned)


@pytest.mark.parametrize("file", MODULES, ids=str)
def test_a_module_says_its_one_job_first_and_stays_short(file: Path) -> None:
    text = (ROOT / file).read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))
    assert len(text.splitlines()) <= MOST_LINES


def test_jobs_can_be_run_as_they_are() -> None:
    modes = tracked()
    runnable = [file for file in modes if file.parts[0] == "jobs" and file.suffix == ".py"]
    assert {file.stem for file in runnable} == {"tune_backbones", "ensemble"}
    for file in [*runnable, Path(".ci/run")]:
        assert modes[file] == 0o100755
        assert os.access(ROOT / file, os.X_OK)
        assert (ROOT / file).read_text().startswith("#!/usr/bin/env ")


def test_no_file_holds_both_line_endings_or_trailing_blanks() -> None:
    found = [
        f"{file}:{number}"
        for file, text in texts()
        for number, line in enumerate(text.split("\n"), start=1)
        if line != line.rstrip()
    ]
    assert found == []
