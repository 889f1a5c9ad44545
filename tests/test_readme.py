"""What the documents tell a reader to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from carray.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "dashboards" / "README.md"]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def lines_of_code(document: Path) -> list[str]:
    blocks = BLOCK.findall(document.read_text())
    return [line for block in blocks for line in block.splitlines() if line.strip()]


TYPED = [
    (document.parent.name, line)
    for document in DOCUMENTS
    for line in lines_of_code(document)
    if line.startswith("carray ") and not line.startswith("carray COMMAND")
]


@pytest.mark.parametrize(("folder", "line"), TYPED, ids=[line for _, line in TYPED])
def test_each_carray_command_exists_with_its_options(folder: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    node = typer.main.get_command(app)
    while isinstance(node, TyperGroup):
        node = node.commands[words.pop(0)]
    known = {option for param in node.params for option in param.opts}
    given = {word for word in words if word.startswith("-")}
    assert given <= known


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"make {target}" in "\n".join(lines_of_code(ROOT / "README.md"))
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parent.name)
def test_each_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    for link in links:
        assert link.startswith("https://") or (document.parent / link).exists()


def test_the_python_door_has_every_name_that_the_readme_uses() -> None:
    import carray

    used = set(re.findall(r"carray\.(\w+)\(", (ROOT / "README.md").read_text()))
    assert used
    assert used <= set(carray.__all__)
