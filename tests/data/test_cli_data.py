"""`carray data` prints what a person needs, within 100 columns, and JSON for machines."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from carray.cli import main
from carray.data.preparation.prepare import prepare
from carray.data.summary import DataSummary
from tests.data.pictures import image_folder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def carray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line; returns (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["carray", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
            sys.exit(0)
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    return run


def test_from_toys_to_a_warm_store(carray: Run, tmp_path: Path) -> None:
    toys, data = tmp_path / "toys", tmp_path / "data"
    code, out, _ = carray("data", "toy", toys, "--images-per-class", 5, "--seed", 1)
    assert code == 0
    assert f"next: carray data prepare {toys}" in out
    code, out, _ = carray("data", "prepare", toys, "--out", data, "--blend-size", 0)
    assert code == 0
    assert "of 12 classes: train" in out
    assert f"next: carray data show {data}" in out
    assert out.endswith(f"      carray tune {data} --trials 12\n")
    code, out, _ = carray("data", "show", data)
    assert code == 0
    assert "Borealis Fjord" in out
    assert "excluded 3 images: " in out
    code, out, _ = carray("data", "warm", data, "--size", 32, "--json")
    assert json.loads(out)["side"] == 40
    code, out, _ = carray("data", "warm", data, "--size", 32, "--verify")
    assert "images at 40 px" in out
    assert "checked" in out


def test_a_data_set_that_another_replaces_is_named(carray: Run, tmp_path: Path) -> None:
    old = image_folder(tmp_path / "old", {"a": 8, "b": 9})
    new = image_folder(tmp_path / "new", {"a": 8, "b": 9, "c": 10}, 99)
    out = tmp_path / "data"
    before = prepare(old, out)
    assert "another data set" not in carray("data", "prepare", old, "--out", out)[2]
    code, _, err = carray("data", "prepare", new, "--out", out)
    assert code == 0
    assert f"manifest {before.hash[:12]}, 17 images of 2 classes" in " ".join(err.split())


@pytest.mark.parametrize("folds", [0, 2])
def test_without_val_images_no_search_is_proposed(carray: Run, tmp_path: Path, folds: int) -> None:
    cars, data = image_folder(tmp_path / "cars", {"a": 8, "b": 9}), tmp_path / "data"
    sizes = ("--val-size", 0, "--blend-size", 0, "--test-size", 0, "--folds", folds)
    code, out, _ = carray("data", "prepare", cars, "--out", data, *sizes)
    assert code == 0
    assert "carray tune" not in out
    assert "there are no val images" in out.splitlines()[-1]
    assert (f"      carray train {data} --folds 2" in out) == (folds == 2)


def test_show_tells_machines_everything(carray: Run, tmp_path: Path) -> None:
    manifest = prepare(image_folder(tmp_path / "cars", {"a": 8, "나": 9}), tmp_path / "data")
    code, out, _ = carray("data", "show", tmp_path / "data", "--json")
    assert code == 0
    summary = DataSummary.model_validate_json(out)
    assert summary.hash == manifest.hash
    assert [(one.name, one.total) for one in summary.classes] == [("a", 8), ("나", 9)]


def test_many_long_named_classes_are_readable(
    carray: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = {f"기아 쏘렌토 하이브리드 {n} " + "x" * 90: 1 for n in range(60)}
    prepare(
        image_folder(tmp_path / "cars", names),
        tmp_path / "data",
        val_size=0,
        blend_size=0,
        test_size=0,
    )
    code, out, _ = carray("data", "show", tmp_path / "data")
    assert code == 0
    lines = out.splitlines()
    assert "... 20 classes of middle size: --all" in lines
    shown = [line for line in lines if "쏘렌토" in line]
    assert max(map(cell_len, shown)) <= 80
    assert len(set(shown)) == 40
    assert len(lines) < 62
    assert len(carray("data", "show", tmp_path / "data", "--all")[1].splitlines()) > 60


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["prepare", "{tmp}/none", "--out", "{tmp}/data"], "there is no"),
        (["prepare", "{tmp}/cars", "--out", "{tmp}/data", "--crop", "bbox"], "must be none or box"),
        (
            ["prepare", "{tmp}/cars", "--out", "{tmp}/data", "--val-size", "2"],
            "--val-size 2 must be",
        ),
        (["show", "{tmp}/cars"], "has no manifest"),
        (["prepare", "{tmp}/cars", "--out", "{tmp}/data", "--merge", "{tmp}/m.yaml"], "no YAML"),
        (["prepare", "{tmp}/cars", "--out", "{tmp}/cars/a/00.jpg"], "is inside the source"),
        (["warm", "{tmp}/none"], "doesn't exist"),
        (["warm", "{tmp}/none", "--store-budget", "nan"], "--store-budget nan must be"),
        (["toy", "{tmp}/cars"], "is there already"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    carray: Run, tmp_path: Path, arguments: list[str], why: str
) -> None:
    image_folder(tmp_path / "cars", {"a": 4, "b": 4})
    (tmp_path / "m.yaml").write_text("a: [b\nc: d\n")
    code, out, err = carray("data", *(word.format(tmp=tmp_path) for word in arguments))
    assert code == 2
    assert out == ""
    assert why in err
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_wrong_crop_is_said_with_all_else_that_is_wrong(carray: Run, tmp_path: Path) -> None:
    image_folder(tmp_path / "cars", {"a": 4, "b": 4})
    wrong = ("--crop", "bbox", "--margin", -1)
    code, _, err = carray("data", "prepare", tmp_path / "cars", "--out", tmp_path / "data", *wrong)
    assert code == 2
    assert err.startswith("carray: 2 things are wrong")


def test_photographs_and_tables_that_are_not_prepared_name_the_command(
    carray: Run, tmp_path: Path
) -> None:
    photos = image_folder(tmp_path / "my cars", {"a": 1})
    code, _, err = carray("tune", photos, "--trials", 1, "--runs", tmp_path / "runs")
    assert code == 2
    assert f"`carray data prepare '{photos}' --out '{photos}-data'` makes a data folder" in err
    with pytest.MonkeyPatch.context() as patch:  # who runs the tests may write anywhere
        patch.setattr("os.access", lambda *_: False)
        _, _, err = carray("data", "show", photos)
    assert f"--out '{Path.cwd() / 'my cars-data'}'`" in err
    (tmp_path / "cars.csv").write_text("image,label\n")
    _, _, err = carray("data", "show", tmp_path / "cars.csv")
    assert f"`carray data prepare {tmp_path}/cars.csv --out {tmp_path}/cars-data`" in err
    assert carray("data", "show", tmp_path / "none")[2].count("doesn't exist") == 1


def test_a_share_of_0_is_taken_by_its_old_name(carray: Run, tmp_path: Path) -> None:
    cars = image_folder(tmp_path / "cars", {"a": 6, "b": 6})
    call = ("prepare", cars, "--out", tmp_path / "data", "--blend", 0, "--test", 0)
    _, out, err = carray("data", *call)
    assert "classes: train 10, val 2\n" in out
    assert "--test is --test-size now; the old name goes with the next version" in err


def test_what_was_taken_from_a_table_is_printed(carray: Run, tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 8, "b": 8})
    rows = [f"{name}/{number:02d}.jpg;{name};{number % 2}" for name in "ab" for number in range(8)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["image;label;part", *rows]) + "\n")
    call = ("prepare", table, "--out", tmp_path / "data", "--split-words", "0=train,1=test")
    _, out, _ = carray("data", *call, "--val-size", 0.5, "--blend-size", 0)
    words = "split from part (0 for train, 1 for test)"
    assert f"read: image from image, label from label, {words}; separated by semicolons" in out
    assert out.endswith(f"      carray tune {tmp_path / 'data'} --budget 1h\n")
