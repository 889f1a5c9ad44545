"""YAML as its version 1.2 reads it, with the line of every key.

PyYAML alone reads version 1.1: `3e-4` is text there, `no` is false and `1:30` is 90.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from carray.errors import ConfigError

Path = tuple[str, ...]  # keys from the top; list items by their index, as text

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


@dataclass(frozen=True)
class Document:
    """Parsed text: the value, and where each key stands."""

    value: Any
    lines: dict[Path, int]
    """1-based line of each key and list item."""
    repeated: tuple[tuple[Path, int], ...] = ()
    """Keys given twice in one mapping, with the second one's line; not those below such a key."""

    def line_of(self, path: Path) -> int | None:
        """Return the line of `path` or of its nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2, and merge keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Read decimal, 0o17 or 0xff; a leading 0 means nothing."""
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        """Read 3e-4, .5, .inf and .nan."""
        text = str(self.construct_scalar(node)).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"^<<$"), ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)


def parse(text: str, name: str) -> Document:
    """Parse one YAML document; `name` is how errors call it.

    Raises:
        ConfigError: the text is no YAML; the message has the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        keys = list(_keys(node, ())) if node else []
        value = loader.construct_document(node) if node else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # endless digits, a loop of names
        raise ConfigError(_say(error, name)) from None
    lines: dict[Path, int] = {}
    repeated: list[tuple[Path, int]] = []
    for path, line in keys:
        is_below = any(path[: len(above)] == above for above, _ in repeated)
        if path in lines and not is_below:
            repeated.append((path, line))
        lines[path] = line
    return Document(value, lines, tuple(repeated))


def _keys(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    """Yield (path, 1-based line) of every key and list item below `node`."""
    if isinstance(node, yaml.MappingNode):
        children = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(index), item, item) for index, item in enumerate(node.value)]
    else:
        return
    for step, key, value in children:
        yield (*path, step), key.start_mark.line + 1
        yield from _keys(value, (*path, step))


def _say(error: Exception, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{name}, line {mark.line + 1}" if mark else name
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{where}: this is no YAML: {problem}"
