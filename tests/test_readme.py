"""What the pages say is true: commands, links and names; and the forms beside them are whole."""

import configparser
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from carray.cli.app import app

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "carray" / "ARCHITECTURE.md"
DOCUMENTS = [
    README,
    ARCHITECTURE,
    ROOT / "dashboards" / "README.md",
    ROOT / "jobs" / "README.md",
    ROOT / "search_spaces" / "README.md",
    ROOT / "tests" / "benchmarks" / "README.md",
    GITHUB / "CHANGELOG.md",
    GITHUB / "CONTRIBUTING.md",
    GITHUB / "PULL_REQUEST_TEMPLATE.md",
]
README_LINES = 139  # one page: what is longer goes to the page of its folder
README_COLUMNS = 110
BLOCK = re.compile(r"^```\w*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
YAMLS = sorted([*GITHUB.rglob("*.yml"), *GITHUB.rglob("*.cff"), ROOT / ".pre-commit-config.yaml"])


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of_code(document: Path) -> list[str]:
    blocks = BLOCK.findall(document.read_text())
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def prose(document: Path) -> str:
    return BLOCK.sub("", document.read_text())


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
    commands = [node]
    while isinstance(node, TyperGroup):
        node = node.commands[words.pop(0)]
        commands = [node, commands[0].commands["tune"]] if node.name == "submit" else [node]
    known = {option for each in commands for param in each.params for option in param.opts}
    given = {word for word in words if word.startswith("-")}
    assert given <= known


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"make {target}" in "\n".join(lines_of_code(README))
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_target_of_make_and_each_script_is_there(document: Path) -> None:
    text = "\n".join([*lines_of_code(document), *re.findall(r"`([^`]+)`", prose(document))])
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for said in re.findall(r"^make ((?:[a-z0-9-]+ ?)+)", text, flags=re.MULTILINE):
        assert set(said.split()) <= set(targets)
    for script in re.findall(r"\b(?:jobs|tests)/[\w/]+\.py\b", text):
        assert (ROOT / script).is_file(), script


def options_of_scripts() -> list[tuple[str, str]]:
    """(script, its options) of every benchmark's command line that a page shows."""
    page = (ROOT / "tests" / "benchmarks" / "README.md").read_text()
    return re.findall(r"`python (tests/benchmarks/\w+\.py)([^`]*)`", page)


@pytest.mark.parametrize(("script", "words"), options_of_scripts())
def test_each_benchmark_takes_the_options_that_its_page_gives(script: str, words: str) -> None:
    text = (ROOT / script).read_text()
    for option in re.findall(r"--[a-z-]+", words):
        assert f'"{option}"' in text


def test_each_benchmark_is_on_its_page() -> None:
    folder = ROOT / "tests" / "benchmarks"
    page = (folder / "README.md").read_text()
    assert all(f"`{script.name}`" in page for script in folder.glob("*.py"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", prose(document))
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(document: Path) -> set[str]:
    """The names under which GitHub finds a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_python_door_has_every_name_that_the_readme_uses() -> None:
    import carray

    used = set(re.findall(r"carray\.(\w+)\(", README.read_text()))
    assert used
    assert used <= set(carray.__all__)


def test_the_readme_is_one_page() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= README_LINES
    assert max(map(len, lines)) <= README_COLUMNS


def test_every_space_is_on_the_page_of_the_spaces() -> None:
    page = (ROOT / "search_spaces" / "README.md").read_text()
    for space in (ROOT / "search_spaces").glob("*.yaml"):
        assert f"[{space.stem}]({space.name})" in page


def test_the_space_on_the_page_of_the_spaces_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "search_spaces" / "README.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "example.yaml").write_text(example)
    command = typer.main.get_command(app)
    command.main(["space", "check", str(tmp_path / "example.yaml")], standalone_mode=False)


def test_the_layers_on_the_page_of_the_architecture_are_those_that_are_checked() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    checked = contracts["importlinter:contract:layers"]["layers"].split("\n")
    page = ARCHITECTURE.read_text()
    said = re.search(r"^```\n(cli\n.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert said
    assert said[1].split("\n")[:-1] == [line.strip() for line in checked if line.strip()]


def test_every_folder_of_the_code_is_on_the_page_of_the_architecture() -> None:
    page = ARCHITECTURE.read_text()
    listed = subprocess.run(
        ["git", "ls-files", "carray"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [Path(line) for line in listed.stdout.splitlines()]
    rooms = {file.parts[1] for file in files if len(file.parts) > 2}
    assert rooms == set(re.findall(r"^\| \[`(\w+)/`\]", page, flags=re.MULTILINE))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", YAMLS, ids=named)
def test_each_form_and_workflow_is_yaml_with_something_in_it(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_the_workflow_runs_the_checks_on_every_python_that_the_project_claims() -> None:
    job = read(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, beyond = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    assert job["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(first, beyond)]
    assert job["env"]["PYTHON"] == "python${{ matrix.python }}"
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]


def test_the_hooks_before_a_commit_are_checks_of_make_test() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        assert f"$(BIN)/{hook['entry'].replace(' --force-exclude', '')}\n" in makefile


def test_the_citation_and_the_changelog_know_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = read(GITHUB / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert f"## {project['version']} " in (GITHUB / "CHANGELOG.md").read_text()
