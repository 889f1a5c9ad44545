"""The wheel, installed where no checkout is, does what the README promises of `carray`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("carray", "search_spaces", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `pip` builds it, from a copy: the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def carray(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a new environment: the wheel, and the tests' packages without carray."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    base = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", vars=base))
    # a .pth file's own paths are not searched for .pth files: what finds the checkout stays out
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    return folder / "bin" / "carray"


def run(carray: Path, folder: Path, *words: str) -> str:
    """Run `carray WORDS` in `folder`, as a person who has nothing but the wheel; return stdout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(carray), *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_every_space(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = {Path(name) for name in opened.namelist()}
    listed = subprocess.run(
        ["git", "ls-files", "carray", "search_spaces/*.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [Path(name) for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    assert len(files) > 100
    spaces = {file for file in files if file.parts[0] == "search_spaces"}
    assert held >= set(files) - spaces
    assert held >= {Path("carray") / file for file in spaces}
    assert {file.parts[0].partition("-")[0] for file in held} == {"carray"}


def test_the_installed_package_is_the_wheels(carray: Path, tmp_path: Path) -> None:
    where = "import carray; print(carray.__file__)"
    python = carray.with_name("python")
    found = subprocess.run(
        [str(python), "-I", "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert carray.parents[1] in Path(found.stdout.strip()).parents


def test_shipped_spaces_are_found_in_an_empty_folder(carray: Path, tmp_path: Path) -> None:
    shipped = [file.stem for file in sorted((ROOT / "search_spaces").glob("*.yaml"))]
    listed = run(carray, tmp_path, "space", "list").splitlines()
    assert [line.split()[0] for line in listed if not line.startswith(" ")] == shipped
    assert run(carray, tmp_path, "space", "check", "backbones").startswith("backbones is valid")
    assert list(tmp_path.iterdir()) == []


def test_a_space_of_ones_own_is_found_before_the_shipped_one(carray: Path, tmp_path: Path) -> None:
    own = tmp_path / "search_spaces" / "quick.yaml"
    own.parent.mkdir()
    own.write_text("version: 1\nfixed: {backbone: resnet18, epochs: 7}\n")
    assert "resnet18" in run(carray, tmp_path, "space", "sample", "quick", "-n", "1")


@pytest.mark.ray
def test_the_demo_runs_in_an_empty_folder_and_a_search_of_backbones_would(
    carray: Path, tmp_path: Path
) -> None:
    small = ("--trials", "1", "--images-per-class", "6")
    said = run(carray, tmp_path, "demo", *small)
    assert (tmp_path / "demo" / "study.png").exists()
    assert (tmp_path / "demo" / "runs" / "models" / "demo" / "card.json").exists()
    assert "carray predict demo/runs/models/demo" in said

    tiny = ("--trials", "1", "--max-epochs", "1", "--set", "pretrained=false")
    tiny += ("--set", "image_size=32", "--set", "backbone=test_resnet")
    tiny += ("--start-from", "none", "--dry-run")  # the demo has just searched
    said = run(carray, tmp_path, "tune", "demo/data", "--space", "backbones", *tiny)
    assert said.startswith("1 trial of at most 1 epoch,")
    assert "test_resnet, lr " in said
