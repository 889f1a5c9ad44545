"""`RunsFolder`: the one folder that holds all studies, models and the default tracking store.

RUNS/
  mlflow.db  mlartifacts/            the default tracking store
  models/NAME/                       model packages
  openings/*.json                    who looked at a locked test split, and when
  probes/*.json                      how backbones rank by a probe, one for each data set
  studies/STUDY/
    study.json  space.yaml  optuna.db  labels.npz  ensembles/NAME.json
    trials/0007/                     `TrialFolder`
      record.json  epochs.jsonl  logits.npz  checkpoint/  best.safetensors
      views/*.npy                      logits of test-time views, as they were looked through

It may be at a URL. Then it is a folder of this machine's cache, into which comes what is asked for,
and what is made in it is put at the URL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Self

from carray.errors import ConfigError, RecordError, did_you_mean
from carray.records import StudyFolder, TrialFolder
from carray.remote_studies import is_light, is_record, pull_study
from carray.storage.mirror import Mirror, mirror_of, mirrored
from carray.storage.remote import is_url


@dataclass(frozen=True)
class RunsFolder:
    """Where studies, models and the default tracking store live."""

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Return `path`, else `$CARRAY_RUNS`, else `./runs`: a folder or a URL; always absolute.

        Raises:
            ConfigError: it is a file.
        """
        found = cls.unchecked(path)
        if found.path.exists() and not found.path.is_dir():
            raise ConfigError(
                f"the runs folder {found.path} is a file: name a folder with --runs or CARRAY_RUNS"
            )
        return found

    @classmethod
    def unchecked(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Return the same, be it a file."""
        chosen = path or os.environ.get("CARRAY_RUNS") or "runs"
        if is_url(chosen):
            return cls(mirrored(os.fspath(chosen), "runs").folder)
        return cls(Path(chosen).expanduser().resolve())

    @property
    def mirror(self) -> Mirror | None:
        """The URL that it mirrors; None where it is an ordinary folder."""
        return mirror_of(self.path)

    @property
    def shown(self) -> str:
        """What messages call it: its URL or its path."""
        return str(self.mirror.remote if self.mirror else self.path)

    @property
    def models(self) -> Path:
        """Model packages, one folder each; of those at a URL all but the weights, see `whole`."""
        self._pull("models")
        return self.path / "models"

    @property
    def openings(self) -> Path:
        """One JSON file for each model that looked at a locked test split."""
        self._pull("openings")
        return self.path / "openings"

    @property
    def probes(self) -> Path:
        """One JSON file for each data set whose backbones were probed."""
        self._pull("probes")
        return self.path / "probes"

    def whole(self, package: Path) -> Path:
        """Return the folder of a model package with its weights, fetched where they aren't here."""
        if self.mirror and package.is_relative_to(self.path):
            self.mirror.pull(self.mirror.name_of(package), lambda name: True)
        return package

    def keep(self, *paths: Path) -> None:
        """Put files and folders that were made here at the URL, where there is one.

        Raises:
            StorageError: it can't be reached or refuses.
        """
        if self.mirror:
            self.mirror.push(paths)

    def _pull(self, below: str) -> None:
        if self.mirror:
            self.mirror.pull(below, is_light)

    @property
    def tracking_file(self) -> Path:
        """The default tracking store, sqlite."""
        return self.path / "mlflow.db"

    @property
    def tracking_artifacts(self) -> Path:
        """The default tracking store's artifacts."""
        return self.path / "mlartifacts"

    def study(self, name: str) -> StudyFolder:
        """Return the folder of study `name`, there or not.

        Raises:
            RecordError: the study in it has another name, which its trials and models go by.
        """
        folder = StudyFolder(self.path / "studies" / name)
        if self.mirror:
            pull_study(self.mirror, folder)
        if folder.record_file.exists() and (own := folder.record().name) != name:
            raise RecordError(
                f"the folder {folder.path} holds study {own!r}, so it was renamed or copied: "
                f"name it {own} again, in a runs folder that has no other of this name"
            )
        return folder

    def studies(self) -> list[StudyFolder]:
        """Return every study with a record, oldest start first; raises RecordError of a broken."""
        return sorted(self.study_folders(), key=lambda folder: folder.record().started_at)

    def study_folders(self) -> list[StudyFolder]:
        """Return the folder of every study with a record, which may be broken, by name."""
        if self.mirror:
            for name in self.study_names():
                pull_study(self.mirror, StudyFolder(self.path / "studies" / name), is_record)
        files = (self.path / "studies").glob("*/study.json")
        return [StudyFolder(file.parent) for file in sorted(files)]

    def find_study(self, name: str | None = None) -> StudyFolder:
        """Return study `name`, else the newest search; raises RecordError where there is none."""
        if name is not None:
            names = self.study_names()
            if name in names:
                return self.study(name)
            raise RecordError(
                f"there is no study {name!r} under {self.shown}{did_you_mean(name, names)}"
            )
        searches = [folder for folder in self.studies() if folder.record().kind == "search"]
        if not searches:
            trained = [folder.path.name for folder in self.studies()]
            other = f"but trainings by themselves: --study {quote(trained[-1])}" if trained else ""
            cure = other or "run `carray tune` first"
            raise RecordError(f"there is no search under {self.shown}; {cure}")
        return self.study(searches[-1].path.name)

    def study_names(self) -> list[str]:
        """Return the names of all studies, here and at the URL; a record may be broken."""
        names = {file.parent.name for file in (self.path / "studies").glob("*/study.json")}
        if self.mirror:
            there = [name.split("/") for name in self.mirror.listing("studies")]
            names |= {parts[1] for parts in there if parts[2:] == ["study.json"]}
        return sorted(names)

    def find_trial(self, name: str) -> TrialFolder:
        """Return the trial at a path, or named `STUDY/NUMBER`; raises RecordError without one."""
        if (Path(name) / "record.json").exists():
            return TrialFolder(Path(name).resolve())
        study, _, number = name.rpartition("/")
        if not study or not number.isdigit():
            raise RecordError(f"{name!r} names no trial: give STUDY/NUMBER or a trial's folder")
        folder = self.find_study(study).trial(int(number))
        if not folder.record_file.exists():
            raise RecordError(f"study {study!r} has no trial {int(number)} under {self.shown}")
        return folder
