"""Versioned JSON on disk: what records are written and read as."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from carray.config import describe
from carray.errors import RecordError
from carray.files import write_text

RECORD_VERSION = 1


class JsonRecord(BaseModel):
    """Versioned JSON on disk; frozen."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int = RECORD_VERSION
    cure: ClassVar[str] = "move it away"  # where it can't be read

    def write(self, path: Path) -> None:
        """Write aside, then rename."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `path`; raises RecordError where it can't be read, with the reason."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecordError(f"there is no record at {path}") from None
        except (ValidationError, OSError, UnicodeDecodeError) as error:
            why = describe(error) if isinstance(error, ValidationError) else error
            raise RecordError(f"the record {path} can't be read ({why}); {cls.cure}") from None
