"""Ensembles from what every trial left: members, rules, one honest look at test, a package."""

from __future__ import annotations

from carray.ensemble.build import build_ensemble, default_package
from carray.ensemble.result import Ensemble

__all__ = ["Ensemble", "build_ensemble", "default_package"]
