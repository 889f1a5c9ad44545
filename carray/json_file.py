"""JSON on disk: what records and cards are written and read as."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from carray.errors import RecordError, describe
from carray.files import write_text


class JsonFile(BaseModel):
    """JSON on disk; frozen. What a newer version has added is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    missing: ClassVar[str] = "there is no record at {path}"
    broken: ClassVar[str] = "the record {path} can't be read ({why}); {cure}"
    cure: ClassVar[str] = "move it away"

    def write(self, path: Path) -> None:
        """Write aside, then rename."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `path`; raises RecordError where it can't be read, with the reason."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise RecordError(cls.missing.format(path=path)) from None
        except (ValidationError, OSError, UnicodeDecodeError) as error:
            why = describe(error) if isinstance(error, ValidationError) else error
            raise RecordError(cls.broken.format(path=path, why=why, cure=cls.cure)) from None
