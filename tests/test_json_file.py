"""Results as plain JSON values."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from carray.cli.shared import emit
from carray.data.summary import ClassCount
from carray.json_file import to_jsonable


@dataclass(frozen=True)
class Row:
    file: Path
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    rows: tuple[Row, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "verdict": "better"}


def test_nested_results_become_values_that_json_takes() -> None:
    count = ClassCount(name="차", splits={"train": 1}, total=1, excluded=0)
    told = to_jsonable([Row(Path("a/b"), (0.5, math.nan, -math.inf)), count])
    assert told[0] == {"file": "a/b", "losses": [0.5, None, None]}
    assert told[1]["splits"] == {"train": 1}
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_result_may_add_to_its_fields() -> None:
    told = to_jsonable(Found((Row(Path("x"), ()),)))
    assert told == {"rows": [{"file": "x", "losses": []}], "verdict": "better"}


def test_a_command_prints_lines_or_one_json_value(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(Path("차"), (1.5,))
    emit(row, lambda row: ["one", f"two {row.file}"], as_json=False)
    assert capsys.readouterr().out == "one\ntwo 차\n"
    emit(row, lambda row: [], as_json=True)
    assert capsys.readouterr().out == '{"file": "차", "losses": [1.5]}\n'
    emit(row, lambda row: [], as_json=True, data=lambda row: {"only": row.losses})
    assert capsys.readouterr().out == '{"only": [1.5]}\n'
    emit(row, lambda row: [], as_json=False)
    assert capsys.readouterr().out == ""
