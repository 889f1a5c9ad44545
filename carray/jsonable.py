"""Plain JSON values of results: dataclasses, pydantic models, paths, numbers that aren't finite."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_jsonable_python


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
