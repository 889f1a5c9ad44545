"""What can be read under a runs folder, for those who look: one broken record hides no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from carray.errors import RecordError
from carray.json_file import JsonResult
from carray.records import StudyFolder, TrialFolder, TrialRecord


@dataclass(frozen=True)
class Unreadable(JsonResult):
    """A study, a trial or a model that is left out."""

    name: str
    """`STUDY`, `STUDY/0007`, or a model's."""
    why: str
    """The reason, the file and the cure."""

    def __str__(self) -> str:
        return f"{self.name} is left out: {self.why}"


@dataclass(frozen=True)
class ReadableStudy(StudyFolder):
    """A study without those of its trials whose records are broken; they are read once."""

    @classmethod
    def of(cls, folder: StudyFolder) -> ReadableStudy:
        """Return `folder` as such a one."""
        return cls(folder.path)

    def trials(self) -> Iterator[tuple[TrialFolder, TrialRecord]]:
        """Yield every trial with a record that can be read, by number."""
        for folder, record in self._each:
            if isinstance(record, TrialRecord):
                yield folder, record

    @property
    def unreadable(self) -> list[Unreadable]:
        """The trials that are passed over, by number."""
        return [
            Unreadable(f"{self.path.name}/{folder.path.name}", str(record))
            for folder, record in self._each
            if not isinstance(record, TrialRecord)
        ]

    @cached_property
    def _each(self) -> list[tuple[TrialFolder, TrialRecord | RecordError]]:
        return [(folder, _record_of(folder)) for folder in self.trial_folders()]


def _record_of(folder: TrialFolder) -> TrialRecord | RecordError:
    try:
        return folder.record()
    except RecordError as error:
        return error


def note_lines(unreadable: Sequence[Unreadable]) -> list[str]:
    """Say what is left out, a line each, below a blank one."""
    return ["", *(f"note: {each}" for each in unreadable)] if unreadable else []
