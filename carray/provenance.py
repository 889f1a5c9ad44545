"""Where a record comes from: versions of what made it, the git commit, the time."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from carray.config import TrialConfig
from carray.extras import import_from_here

PACKAGES = ("carray", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "numpy")


@cache
def versions() -> dict[str, str]:
    """Return {package: version} of what a result may depend on; imports none of them."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def versions_for(config: TrialConfig) -> dict[str, str]:
    """Return `versions`, and of the transform that `config` names 8 hex digits of its file."""
    own = module_hash(config.augment.transform)
    return versions() | ({"augment.transform": own} if own else {})


def module_hash(entry: str) -> str:
    """Return 8 hex digits of the file of `package.module:function`; "" where there is none."""
    import_from_here()
    try:
        spec = find_spec(entry.partition(":")[0])
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:8]  # type: ignore
    except (ImportError, ValueError, AttributeError, TypeError, OSError):
        return ""


@cache
def git_commit() -> str:
    """Return the commit of the checkout that carray runs from, "-dirty" if changed; "" if none."""
    folder = Path(__file__).resolve().parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # else it's another's
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}-dirty" if changed else commit


@cache
def source_hash() -> str:
    """Return 8 hex digits that name the code of carray itself, whatever version it says it is."""
    folder, digest = Path(__file__).resolve().parent, hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def _git(folder: Path, *arguments: str) -> str:
    call = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(call, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
