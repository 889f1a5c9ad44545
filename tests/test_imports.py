"""What a process doesn't need, it doesn't import: each of hundreds would pay for it."""

import subprocess
import sys

import pytest

LANE = ("mlflow", "optuna", "sklearn", "plotly", "matplotlib", "captum", "ray.tune")
THIN = ("torch", "torchvision", "timm", "cv2", *LANE[:-1])


@pytest.mark.parametrize(
    ("modules", "spared"),
    [
        ("carray.lanes.lane, carray.training.runner", LANE),
        ("carray.search.scheduling.trainable", THIN),
    ],
    ids=["lane", "thin trial"],
)
def test_a_process_of_a_study_imports_no_more_than_it_needs(
    modules: str, spared: tuple[str, ...]
) -> None:
    code = f"import sys, {modules}; print('LOADED', *(set({spared!r}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1].split() == ["LOADED"]
