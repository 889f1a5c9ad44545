"""One flag, one meaning: an option of several commands takes the same kind of value in all."""

from collections import defaultdict
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from carray.cli.app import app
from tests.test_cli import COMMANDS


def test_a_flag_takes_one_kind_of_value() -> None:
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, command in COMMANDS.items():
        for option in command.params:
            if option.param_type_name == "option" and not getattr(option, "hidden", False):
                kind = option.type_descriptor.annotation
                while get_args(kind):  # of `int | None`, and of each of several
                    kind = get_args(kind)[0]
                what = KINDS.get(kind, "text")
                for name in option.opts:
                    kinds[name][what].append(path)
    several = {name: dict(found) for name, found in kinds.items() if len(found) > 1}
    assert not several, several


KINDS = {bool: "flag", int: "number", float: "number"}
OLD = {
    "--trials": ("compare", "--trials", "1,2"),
    "--level": ("predict", "no", ".", "--level", "auto"),
    "--name": ("add-class", "no", "--images", ".", "--name", "x"),
    "--out": ("add-class", "no", "--images", ".", "--class", "x", "--out", "y"),
    "--folds": ("ensemble", "no", "--folds"),
    "--images": ("sanity", ".", "--images", "8"),
    "--budget": ("replay-lab", "no", "--budget", "3"),
    "--size": ("portfolio", "no", "--size", "2"),
    "--val": ("data", "prepare", "no", "--out", "out", "--val", "0"),
    "--blend": ("data", "prepare", "no", "--out", "out", "--blend", "0"),
    "--test": ("data", "prepare", "no", "--out", "out", "--test", "0"),
}


@pytest.mark.parametrize("old", OLD)
def test_an_option_is_known_by_its_old_name_and_says_the_new_one(old: str, tmp_path: Path) -> None:
    words = OLD[old]
    runs = () if words[0] in ("sanity", "data") else ("--runs", str(tmp_path))
    done = CliRunner().invoke(app, [*words, *runs])
    assert f"{old} is --" in done.stderr
    assert "no such option" not in done.stderr.lower()


def test_a_class_without_a_name_is_asked_for(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["add-class", "m", "--images", str(tmp_path)])
    assert "give it with --class" in str(done.exception)
