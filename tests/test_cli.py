"""The command line as a whole: what it imports, how it teaches, how it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from carray.cli import main, run
from carray.cli.app import app
from tests.reports.studies import make_study

HEAVY = ("torch", "torchvision", "timm", "ray", "mlflow", "pandas", "optuna", "sklearn", "scipy")
WIDTH = 100
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def carray(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["carray", *words])
        try:
            main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def commands(group: object = None, path: str = "carray") -> Iterator[tuple[str, TyperCommand]]:
    """Every command that does something, with all its words."""
    node = typer.main.get_command(app) if group is None else group
    if isinstance(node, TyperGroup):
        for name, child in node.commands.items():
            yield from commands(child, f"{path} {name}")
    else:
        assert isinstance(node, TyperCommand)
        yield path, node


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", [["--help"], ["space", "--help"], ["space", "sample", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['carray', *{words!r}]\n"
        "from carray.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1].split() == ["LOADED"]


def test_a_refusal_is_one_line_on_stderr_and_exit_code_2() -> None:
    command = [sys.executable, "-m", "carray", "space", "check", "qick"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "no search space 'qick'; did you mean 'quick'?" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_refusal_fits_a_terminal(carray: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    code, _, err = carray("compare", "a/0000")
    assert code == 2
    lines = err.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 60
    monkeypatch.delenv("COLUMNS")
    assert " ".join(err.split()) == carray("compare", "a/0000")[2].strip()


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_says_what_it_does_and_what_each_option_means(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    told = {param.name: bool(getattr(param, "help", None)) for param in command.params}
    self_explaining = {"help", "seed"}
    assert [
        name for name, told_so in told.items() if not told_so and name not in self_explaining
    ] == []


@pytest.mark.parametrize("path", COMMANDS)
def test_square_brackets_in_help_are_shown(path: str) -> None:
    for param in COMMANDS[path].params:
        text = getattr(param, "help", None) or ""
        assert Text.from_markup(text).plain == text.replace("\\[", "[")


@pytest.mark.parametrize("path", COMMANDS)
def test_each_commands_help_can_be_shown(carray: Run, path: str) -> None:
    code, out, _ = carray(*path.split()[1:], "--help")
    assert code == 0
    assert f"Usage: {path}" in out


def test_the_version_is_told(carray: Run) -> None:
    assert carray("--version") == (0, f"carray {version('carray')}\n", "")


def test_no_words_teach(carray: Run) -> None:
    _, out, err = carray()
    assert "Usage: carray" in out + err


class TestSpace:
    @pytest.mark.parametrize("name", ["quick", "backbones"])
    def test_check_fits_the_width_and_says_valid(self, carray: Run, name: str) -> None:
        code, out, _ = carray("space", "check", name)
        assert code == 0
        assert f"{name} is valid" in out
        assert max(map(len, out.splitlines())) <= WIDTH

    def test_sample_prints_as_many_trials_as_asked(self, carray: Run) -> None:
        code, out, _ = carray("space", "sample", "backbones", "-n", "7", "--seed", "2")
        assert code == 0
        titles = [line for line in out.splitlines() if not line.startswith(" ")]
        assert [title.split()[0] for title in titles] == [str(number) for number in range(7)]
        assert max(map(len, out.splitlines())) <= WIDTH

    def test_sample_as_json_has_configs_that_can_be_read_back(self, carray: Run) -> None:
        from carray.config import TrialConfig

        _, out, _ = carray("space", "sample", "quick", "-n", "3", "--json")
        trials = json.loads(out)
        configs = [TrialConfig.model_validate(trial["config"]) for trial in trials]
        assert len({config.optimizer.lr for config in configs}) == 3

    def test_check_as_json_names_the_hash(self, carray: Run) -> None:
        from carray.search.space.loading import load_space

        _, out, _ = carray("space", "check", "quick", "--json")
        assert json.loads(out)["hash"] == load_space("quick").hash

    def test_list_names_the_shipped_spaces(self, carray: Run) -> None:
        _, out, _ = carray("space", "list")
        assert {line.split()[0] for line in out.splitlines() if line[0] != " "} >= {
            "quick",
            "backbones",
        }

    def test_schema_knows_every_parameter(self, carray: Run, tmp_path: Path) -> None:
        from carray.config import config_paths

        carray("space", "schema", "--out", str(tmp_path / "space.json"))
        schema = json.loads((tmp_path / "space.json").read_text())
        assert set(schema["properties"]["search"]["properties"]) == set(config_paths())
        lr = schema["properties"]["fixed"]["properties"]["optimizer.lr"]
        assert (lr["exclusiveMinimum"], lr["maximum"]) == (0, 10)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 1\nfixed: {epoch: 3}\n", "did you mean 'epochs' or 'finetune.epoch'?"),
        ("version: 1\nfixed: {backbone: resnet51}\n", "unknown backbone 'resnet51'; did you mean"),
        ("version: 1\nfixed: {backbone: resnet50.a9_in1k}\n", "no weights tagged 'a9_in1k'"),
        ("version: 1\nsearch: {dropout: {uniform: [0.0, 1.3]}}\n", "input should be less than 1"),
    ],
)
def test_a_wrong_space_is_refused_in_one_sentence(
    carray: Run, tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    code, out, err = carray("space", "check", str(file))
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_missing_space_is_refused_in_one_sentence(carray: Run) -> None:
    code, out, err = carray("space", "check", "quik")
    assert (code, out) == (2, "")
    assert err == "carray: there is no search space 'quik'; did you mean 'quick'?\n"


@pytest.mark.parametrize("path", COMMANDS)
def test_help_flows_to_a_narrow_terminal(
    path: str, carray: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = carray(*path.split()[1:], "--help")
    assert code == 0
    assert "…" not in out, "an option's words are cut off"
    lines = [line.strip() for line in out.partition("╭")[0].splitlines()]
    for line, following in pairwise(lines):
        if line and following:
            assert len(f"{line} {following.split()[0]}") > 78, "a line ends before its place"


@pytest.mark.parametrize("words", ["ensemble --seed -1", "report --rows 0", "replay a --epochs 0"])
def test_numbers_out_of_range_are_refused_before_anything_is_read(carray: Run, words: str) -> None:
    code, _, err = carray(*words.split())
    assert code == 2
    assert "greater than or equal" in err


def test_a_path_that_the_system_refuses_is_one_sentence(carray: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = carray("data", "prepare", str(tmp_path), "--out", str(tmp_path / "file" / "x"))
    assert code == 2
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_costs_neither_a_word_nor_the_exit_code() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code = "from carray.cli import run; run(lambda: print('{}'))"
        ended = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--version"], ["list", "--json"]])
def test_an_output_that_takes_no_more_is_not_called_a_file(
    words: list[str], unbuffered: str, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "carray", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert ran.returncode == 2
    assert ran.stderr.startswith("carray: what the output goes to can't be used (No space left")
    assert len(ran.stderr.splitlines()) == 1


def test_a_user_without_a_home_folder_is_told_to_set_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 2)  # no user has it
    with pytest.raises(SystemExit) as ended:
        run(lambda: print(Path("~/ray_results").expanduser()))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "user 2147483646 has no home folder" in said and "set HOME" in said


def test_a_study_may_be_named_bare(carray: Run, tmp_path: Path) -> None:
    name, runs = make_study(tmp_path).path.name, ("--runs", str(tmp_path))
    bare, named = carray("status", name, *runs), carray("status", "--study", name, *runs)
    assert bare == named
    assert name in bare[1]
    assert carray("leaderboard", name, "--top", "1", "--json", *runs)[0] == 0


def test_a_guessed_command_is_answered_with_the_one_that_does_it(carray: Run) -> None:
    code, _, err = carray("sweep")
    assert code == 2
    assert "`carray tune DIR`" in err


@pytest.mark.parametrize(("guess", "meant"), [("run", "carray tune DIR"), ("mlflow", "carray ui")])
def test_what_people_guess_names_the_command(carray: Run, guess: str, meant: str) -> None:
    code, _, err = carray(guess)
    assert code == 2 and meant in err


def run_in_locale_c(code: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | locale, cwd=folder, capture_output=True)


def test_in_the_locale_c_letters_become_question_marks_and_file_names_are_not_to_blame(
    tmp_path: Path,
) -> None:
    (tmp_path / "소나타").mkdir()
    (tmp_path / "소나타" / "1.jpg").touch()
    code = (
        "from pathlib import Path\n"
        "from carray.cli import run\n"
        "from carray.data.preparation.sources.listing import walk_images\n"
        "run(lambda: print('\\uc18c', flush=True))\n"
        "run(lambda: walk_images(Path().resolve()))"
    )
    ran = run_in_locale_c(code, tmp_path)
    assert ran.returncode == 2 and ran.stdout == b"?\n"
    assert b"this shell's locale (ascii) can't read" in ran.stderr and b"PYTHONUTF8=1" in ran.stderr


def test_a_known_file_that_the_locale_c_cannot_name_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from carray.cli import run\n"
        "run(lambda: Path('emoji\\U0001f697', '1.jpg').read_bytes())"
    )
    ran = run_in_locale_c(code, tmp_path)
    assert ran.returncode == 2 and ran.stderr.count(b"\n") == 1
    assert b"can't read the file name 'emoji" in ran.stderr and b"PYTHONUTF8=1" in ran.stderr


def test_a_folder_that_is_gone_or_cannot_be_made_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(lambda: Path("/proc/1/runs").mkdir(parents=True))
    assert ended.value.code == 2
    assert "/proc/1/runs can't be used" in capsys.readouterr().err
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit) as ended:
        main(["list"])
    assert ended.value.code == 2
    assert "the folder that you are in is gone" in capsys.readouterr().err


LEFT = """
import atexit, os, threading
import ray
from carray import cli
from carray.errors import ClusterError
atexit.register(os._exit, 1)  # what leaving Ray comes to, beside a lane that asks it
threading.Thread(target=threading.Event().wait, name="lane-0", daemon=True).start()
def command():
    raise ClusterError("a lane was lost")
cli.run(command)
"""


def test_a_study_that_leaves_a_lane_behind_ends_with_its_own_exit_code() -> None:
    ended = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (3, "carray: a lane was lost\n")
