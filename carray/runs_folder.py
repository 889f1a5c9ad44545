"""`RunsFolder`: the one folder that holds all studies, models and the default tracking store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from carray.errors import RecordError, did_you_mean
from carray.records import StudyFolder, TrialFolder


@dataclass(frozen=True)
class RunsFolder:
    """Where studies, models and the default tracking store live."""

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Return `path`, else `$CARRAY_RUNS`, else `./runs`; always absolute."""
        chosen = path or os.environ.get("CARRAY_RUNS") or "runs"
        return cls(Path(chosen).expanduser().resolve())

    @property
    def models(self) -> Path:
        """Model packages, one folder each."""
        return self.path / "models"

    @property
    def openings(self) -> Path:
        """One JSON file for each model that looked at a locked test split."""
        return self.path / "openings"

    @property
    def tracking_file(self) -> Path:
        """The default tracking store, sqlite."""
        return self.path / "mlflow.db"

    @property
    def tracking_artifacts(self) -> Path:
        """The default tracking store's artifacts."""
        return self.path / "mlartifacts"

    def study(self, name: str) -> StudyFolder:
        """Return the folder of study `name`, there or not."""
        return StudyFolder(self.path / "studies" / name)

    def studies(self) -> list[StudyFolder]:
        """Return every study with a record, oldest start first."""
        files = (self.path / "studies").glob("*/study.json")
        folders = [StudyFolder(file.parent) for file in files]
        return sorted(folders, key=lambda folder: folder.record().started_at)

    def find_study(self, name: str | None = None) -> StudyFolder:
        """Return study `name`, else the newest search; raises RecordError where there is none."""
        if name is not None:
            names = [file.parent.name for file in (self.path / "studies").glob("*/study.json")]
            if name in names:
                return self.study(name)
            raise RecordError(
                f"there is no study {name!r} under {self.path}{did_you_mean(name, names)}"
            )
        searches = [folder for folder in self.studies() if folder.record().kind == "search"]
        if not searches:
            raise RecordError(f"there is no study under {self.path}; run `carray tune` first")
        return searches[-1]

    def find_trial(self, name: str) -> TrialFolder:
        """Return the trial at a path, or named `STUDY/NUMBER`; raises RecordError without one."""
        if (Path(name) / "record.json").exists():
            return TrialFolder(Path(name).resolve())
        study, _, number = name.rpartition("/")
        if not study or not number.isdigit():
            raise RecordError(f"{name!r} names no trial: give STUDY/NUMBER or a trial's folder")
        folder = self.find_study(study).trial(int(number))
        if not folder.record_file.exists():
            raise RecordError(f"study {study!r} has no trial {int(number)} under {self.path}")
        return folder
