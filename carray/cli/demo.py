"""`carray demo`: data, study, ensemble and prediction on toy cars, in minutes on two cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from carray.cli.shared import say

TRIALS = 12
REFITS = 3
REFIT_EPOCHS = 30
# test is large: what merging brings is little
SIZES = {"val_size": 0.09, "blend_size": 0.07, "test_size": 0.5}


def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("demo"),
    trials: Annotated[int, typer.Option(help="Trials of the search.")] = TRIALS,
    images_per_class: Annotated[int, typer.Option(help="Toy cars of each of 12 models.")] = 110,
) -> None:
    """Render toy cars, prepare them, search, refit, ensemble, and draw a picture of the study.

    Run again, it goes on where it stopped; nothing that is done is done twice.
    """
    from carray import api
    from carray.drawing import drawn_or_none
    from carray.ensemble import build_ensemble
    from carray.errors import counted
    from carray.progress import progress, seconds_text
    from carray.reports.ensemble import ensemble_lines
    from carray.reports.hints import command
    from carray.reports.pictures.plots import study_picture
    from carray.reports.study import study_lines

    start = time.monotonic()
    runs, refits = folder / "runs", min(REFITS, trials)
    _step(1, "draw 12 models of toy cars; find flaws; cut train, val, blend and test")
    data = api.toy_data(folder, images_per_class, progress, **SIZES)
    _step(
        2,
        f"search: {counted(trials, 'trial')}, weak ones ended early; then the best {refits} again, "
        "longer",
    )
    study = api.tune(
        data,
        "quick",
        trials=trials,
        name="demo",
        runs=runs,
        refit=refits,
        refit_epochs=REFIT_EPOCHS,
    )
    _print_found(lambda: study_lines(study.folder))
    _step(3, "ensemble: from the logits that every trial left")
    ensemble = build_ensemble("demo", top=refits, runs=runs, name="demo")
    _print_found(lambda: ensemble_lines(ensemble))
    picture = drawn_or_none(lambda: study_picture(study.folder, folder / "study.png"))
    shown = f"The study as a picture: {picture}\n" if picture else ""
    print(f"\n{shown}Done in {seconds_text(time.monotonic() - start)}.")
    print("Type next:")
    carray = command()
    print(f"  {carray} ui --runs {runs}")
    package = f"{runs}/models/{ensemble.name}"
    print(f"  {carray} predict {package} {folder}/toycars/*/0001.*")
    print(f"  {carray} data prepare YOUR_FOLDER --out cars")


def _print_found(lines: Callable[[], list[str]]) -> None:
    """Print what was found; what to type next is said once, in the end."""
    say(lambda: takewhile(lambda line: line != "next:", lines()))


def _step(number: int, text: str) -> None:
    print(f"\n[{number}/3] {text}", flush=True)
