"""No module of the project imports, at any depth and for types alone, one that imports it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "carray"


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


FILES = {module_name(file): file for file in PACKAGE.rglob("*.py")}


def imported(text: str, known: set[str]) -> Iterator[str]:
    """Yield the modules among `known` that a module's text imports, in functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in known)
        if isinstance(node, ast.ImportFrom) and node.module in known:
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                yield inner if inner in known else str(node.module)


def find_circle(texts: dict[str, str]) -> list[str]:
    """Return the modules of one circle of imports, or nothing."""
    known = set(texts)
    graph = {name: set(imported(text, known)) - {name} for name, text in texts.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_of_imports() -> None:
    # the package's own `__init__` names the public functions for type checkers alone
    texts = {name: file.read_text() for name, file in FILES.items() if name != "carray"}
    assert len(texts) > 200
    assert find_circle(texts) == []


@pytest.mark.parametrize(
    "back",
    [
        "import carray.a",
        "def f():\n    from carray.a import x",
        "if TYPE_CHECKING:\n    from carray import a",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(back: str) -> None:
    texts = {"carray": "", "carray.a": "from carray.b import y", "carray.b": back}
    assert set(find_circle(texts)) == {"carray.a", "carray.b"}
