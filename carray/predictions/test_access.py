"""The locked test split: every model that looks at it leaves a record of having looked."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from carray.errors import RecordError
from carray.files import write_text
from carray.records import RunsFolder


class AccessRecord(BaseModel):
    """Who looked at a test split, and when; the same model looking again is the same opening."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    model: str
    study: str
    manifest_hash: str
    fingerprint: str
    """Names members, weights, rule and temperature."""
    times: tuple[float, ...]
    """Unix times, seconds."""


def fingerprint(what: Any) -> str:
    """Return 16 hex digits that name JSON-able `what`."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def record_access(
    runs: RunsFolder, *, model: str, study: str, manifest_hash: str, fingerprint: str
) -> int:
    """Record that a model looks at the test split; return how many models ever did, this too."""
    file = runs.openings / f"{manifest_hash[:12] or 'unknown'}-{fingerprint}.json"
    before = _read(file).times if file.exists() else ()
    opening = AccessRecord(
        model=model,
        study=study,
        manifest_hash=manifest_hash,
        fingerprint=fingerprint,
        times=(*before, time.time()),
    )
    write_text(file, opening.model_dump_json(indent=1) + "\n")
    return len(accesses(runs, manifest_hash))


def accesses(runs: RunsFolder, manifest_hash: str) -> list[AccessRecord]:
    """Return every opening of one data set's test split, oldest first."""
    files = sorted(runs.openings.glob("*.json"))
    found = [opening for opening in map(_read, files) if opening.manifest_hash == manifest_hash]
    return sorted(found, key=lambda opening: opening.times[0])


def _read(file: Path) -> AccessRecord:
    try:
        return AccessRecord.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RecordError(f"the opening {file} can't be read: {error}") from None


def access_text(models: int) -> str:
    """Say how many models have been judged by the test split."""
    return f"{models} model{'s have' if models > 1 else ' has'} looked at this test split"
