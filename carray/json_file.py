"""JSON: plain values of results, and the files that records and cards are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from carray.errors import RecordError, describe
from carray.files import write_text


class JsonFile(BaseModel):
    """JSON on disk; frozen. What a newer version has added is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    missing: ClassVar[str] = "there is no record at {path}"
    broken: ClassVar[str] = "the record {path} can't be read ({why}); {cure}"
    cure: ClassVar[str] = "move it away"

    @property
    def text(self) -> str:
        """What is in its file."""
        return self.model_dump_json(indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write aside, then rename."""
        write_text(path, self.text)

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


def to_jsonable(value: Any) -> Any:
    """Return `value` as what `json.dumps` takes: paths as text, NaN and infinities as None.

    A result that adds to its fields says how, by a method `as_dict`; the outermost one counts.
    """
    shown = value.as_dict() if hasattr(value, "as_dict") else value
    return to_jsonable_python(shown, inf_nan_mode="null")


class JsonResult:
    """Base of results: dataclasses whose fields are all plain data, paths or such results."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data; what is unknown or infinite is None."""
        found: dict[str, Any] = to_jsonable_python(self, inf_nan_mode="null")
        return found
