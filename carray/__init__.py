"""carray: distributed hyperparameter search and ensembling for fine-grained car classification.

The names below are the whole Python door; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "CarrayError": "carray.errors",
    "Ensemble": "carray.ensemble",
    "Manifest": "carray.data.manifest",
    "SearchSpace": "carray.search.space",
    "Study": "carray.api",
    "TrialConfig": "carray.config",
    "add_class": "carray.ensemble.add_class",
    "assemble_folds": "carray.ensemble.folds",
    "build_ensemble": "carray.ensemble",
    "climb": "carray.lab.ladder",
    "compare_sides": "carray.ensemble.versus",
    "compare_trials": "carray.ensemble.side_by_side",
    "draw_confusion": "carray.reports.confusion",
    "explain": "carray.ensemble.explain",
    "export_features": "carray.ensemble.features",
    "load_model": "carray.ensemble.package",
    "load_study": "carray.api",
    "predict_to_csv": "carray.ensemble.predict",
    "prepare": "carray.data.prepare",
    "render_toycars": "carray.data.toycars",
    "replay": "carray.training.replay",
    "sample_sheet": "carray.data.sheet",
    "sanity": "carray.training.sanity",
    "show_mistakes": "carray.ensemble.mistakes",
    "train": "carray.training.single",
    "train_classical": "carray.training.classical",
    "train_folds": "carray.training.folds",
    "train_trial": "carray.training.single",
    "tune": "carray.api",
    "write_doubtful": "carray.ensemble.doubtful",
}
__all__ = [
    "CarrayError",
    "Ensemble",
    "Manifest",
    "SearchSpace",
    "Study",
    "TrialConfig",
    "add_class",
    "assemble_folds",
    "build_ensemble",
    "climb",
    "compare_sides",
    "compare_trials",
    "draw_confusion",
    "explain",
    "export_features",
    "load_model",
    "load_study",
    "predict_to_csv",
    "prepare",
    "render_toycars",
    "replay",
    "sample_sheet",
    "sanity",
    "show_mistakes",
    "train",
    "train_classical",
    "train_folds",
    "train_trial",
    "tune",
    "write_doubtful",
]

if TYPE_CHECKING:
    from carray.api import Study, load_study, tune
    from carray.config import TrialConfig
    from carray.data.manifest import Manifest
    from carray.data.prepare import prepare
    from carray.data.sheet import sample_sheet
    from carray.data.toycars import render_toycars
    from carray.ensemble import Ensemble, build_ensemble
    from carray.ensemble.add_class import add_class
    from carray.ensemble.doubtful import write_doubtful
    from carray.ensemble.explain import explain
    from carray.ensemble.features import export_features
    from carray.ensemble.folds import assemble_folds
    from carray.ensemble.mistakes import show_mistakes
    from carray.ensemble.package import load_model
    from carray.ensemble.predict import predict_to_csv
    from carray.ensemble.side_by_side import compare_trials
    from carray.ensemble.versus import compare_sides
    from carray.errors import CarrayError
    from carray.lab.ladder import climb
    from carray.reports.confusion import draw_confusion
    from carray.search.space import SearchSpace
    from carray.training.classical import train_classical
    from carray.training.folds import train_folds
    from carray.training.replay import replay
    from carray.training.sanity import sanity
    from carray.training.single import train, train_trial


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'carray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
