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
    "SearchSpace": "carray.search.space.space",
    "Study": "carray.api",
    "TrialConfig": "carray.config",
    "add_class": "carray.incremental.add_class",
    "assemble_folds": "carray.analysis.cross_validation",
    "build_ensemble": "carray.ensemble",
    "climb": "carray.analysis.ablation",
    "compare_sides": "carray.analysis.compare_pair",
    "compare_trials": "carray.analysis.compare_trials",
    "draw_confusion": "carray.reports.confusion",
    "explain": "carray.analysis.explain",
    "export_features": "carray.inference.features",
    "load_model": "carray.inference.package",
    "load_study": "carray.api",
    "predict_to_csv": "carray.inference.predict",
    "prepare": "carray.data.preparation.prepare",
    "render_toycars": "carray.data.synthetic",
    "replay": "carray.training.reproduce",
    "sample_sheet": "carray.reports.sample_sheet",
    "sanity": "carray.training.overfit_check",
    "show_mistakes": "carray.analysis.misclassified",
    "train": "carray.training.train",
    "train_classical": "carray.training.features.classifiers",
    "train_folds": "carray.training.cross_validation",
    "train_trial": "carray.training.train",
    "tune": "carray.api",
    "write_doubtful": "carray.analysis.label_errors",
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
    from carray.analysis.ablation import climb
    from carray.analysis.compare_pair import compare_sides
    from carray.analysis.compare_trials import compare_trials
    from carray.analysis.cross_validation import assemble_folds
    from carray.analysis.explain import explain
    from carray.analysis.label_errors import write_doubtful
    from carray.api import Study, load_study, tune
    from carray.config import TrialConfig
    from carray.data.manifest import Manifest
    from carray.data.preparation.prepare import prepare
    from carray.data.synthetic import render_toycars
    from carray.ensemble import Ensemble, build_ensemble
    from carray.errors import CarrayError
    from carray.incremental.add_class import add_class
    from carray.inference.features import export_features
    from carray.inference.predict import predict_to_csv
    from carray.inference.predictor import load_model
    from carray.reports.confusion import draw_confusion
    from carray.reports.misclassified import show_mistakes
    from carray.reports.sample_sheet import sample_sheet
    from carray.search.space.space import SearchSpace
    from carray.training.cross_validation import train_folds
    from carray.training.features.classifiers import train_classical
    from carray.training.overfit_check import sanity
    from carray.training.reproduce import replay
    from carray.training.train import train, train_trial


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'carray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
