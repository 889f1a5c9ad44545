"""What a process doesn't need, it doesn't import: each of hundreds would pay for it."""

import subprocess
import sys
from pathlib import Path

from carray.ensemble import build_ensemble
from tests.inference.packages import make_real_study

LANE = ("mlflow", "optuna", "sklearn", "plotly", "matplotlib", "captum", "ray.tune")
THIN = ("torch", "torchvision", "timm", "cv2", *LANE[:-1])


PACKAGE = ("ray", "optuna", "mlflow", "carray.search", "sklearn")


def loaded(code: str, *spared: tuple[str, ...]) -> list[list[str]]:
    """Return what of each `spared` a process has loaded when it says `look(spared)`."""
    look = "import sys\nlook = lambda names: print('LOADED', *(set(names) & set(sys.modules)))\n"
    command = [sys.executable, "-c", look + code.format(*spared)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("LOADED")]


def test_a_trial_of_a_search_imports_no_more_than_it_needs() -> None:
    assert loaded("import carray.search.scheduling.trainable\nlook({})", THIN) == [[]]


def test_a_package_that_is_loaded_and_then_a_lane_import_no_more_than_they_need(
    tmp_path: Path,
) -> None:
    """In one process, because torch and timm take most of its time."""
    make_real_study(tmp_path)
    package = build_ensemble(runs=tmp_path, track=False).package
    code = (
        "from carray.inference.predictor import load_model\n"
        f"load_model({str(package)!r})\nlook({{}})\n"
        "import carray.lanes.ray_groups, carray.training.runner\nlook({})"
    )
    assert loaded(code, PACKAGE, LANE) == [[], []]


def test_a_mistyped_name_is_refused_before_anything_slow_is_imported(tmp_path: Path) -> None:
    """In one process: what any of them imports stays."""
    typed = "compare no/1 no/2,compare --study no,soup no,folds no,status no,show no/3"
    typed += ",show nothing,leaderboard no"
    typed += ",distill no --into resnet18,predict no .,add-class no --images . --class x"
    typed += ",ensemble no,ensemble no --pareto,errors no .,features no .,evaluate no,explain no ."
    typed += ",bench no,calibrate no,export no --out x.onnx,serve no,replay no/1"
    typed += ",confusion no/1,replay-lab no,portfolio no"
    folders = "train no,sanity no,probe no --backbones a,ladder no"
    code = (
        "from carray.cli import main\n"
        f"where = ['--runs', {str(tmp_path)!r}]\n"
        f"for words in {typed!r}.split(',') + {folders!r}.split(','):\n"
        "    try:\n"
        "        main([*words.split(), *where * (words != 'sanity no')])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 2, words\n"
        "look({})"
    )
    assert loaded(code, ("torch", "timm", "mlflow", "ray")) == [[]]
