"""Types and names that several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

AnyFloats = npt.NDArray[np.floating[Any]]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]  # class index of each image
Rows = npt.NDArray[np.int64]  # row numbers: into `Manifest.included`, a split, a table of hashes

Advance = Callable[[int], None]  # adds to what is done

GIB = 2**30


class Progress(Protocol):
    """Shows how far something is, as `carray.progress.progress` does."""

    def __call__(
        self, what: str, total: int, unit: str = "images", /
    ) -> AbstractContextManager[Advance]:
        """Yield the function that adds to what is done of `total`."""


Precision = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
BestMetric = Literal[
    "val/log_loss",
    "val/calibrated_log_loss",
    "val/top1",
    "val/top5",
    "val/macro_f1",
    "val/balanced_accuracy",
]

LOOKAHEAD = "lookahead_"  # before the name of an optimizer whose steps it averages
OPTIMIZERS = (
    *("adabelief", "adadelta", "adafactor", "adafactorbv", "adafactorbvc", "adagrad"),
    *("adam", "adamax", "adamc", "adamp", "adamuon", "adamw", "adan", "adanw", "adopt"),
    *("adoptc", "adoptw", "cadafactor", "cadafactorbv", "cadafactorbvc", "cadamc"),
    *("cadamp", "cadamw", "cadan", "cadanw", "cadopt", "cadoptc", "cadoptw", "clamb"),
    *("clambw", "claprop", "clion", "clionc", "cmars", "cnadamc", "cnadamw", "crmsproptf"),
    *("csgdc", "csgdp", "csgdw", "lamb", "lambc", "lambcd", "lambcw", "lambw", "laprop"),
    *("lapropc", "larc", "lars", "lion", "lionc", "madgrad", "madgradw", "mars"),
    *("momentum", "muon", "nadam", "nadamc", "nadamuon", "nadamw", "nesterov", "nesterovw"),
    *("nlarc", "nlars", "nmuon", "novograd", "novogradc", "novogradw", "radabelief"),
    *("radam", "radamw", "rmsprop", "rmsproptf", "rmsproptfc", "rmsproptfw", "sgd", "sgdc"),
    *("sgdp", "sgdw"),
)
"""timm's names, without those that need another library (apex, bitsandbytes, opt_einsum) or second
derivatives, and without older versions of others."""
LOOKAHEADS = tuple(LOOKAHEAD + name for name in OPTIMIZERS)
