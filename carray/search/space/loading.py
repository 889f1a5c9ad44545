"""Reading a search space from a YAML file, found by path or by the name of a shipped one."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from carray.errors import ConfigError, did_you_mean
from carray.search.space.space import SearchSpace
from carray.search.space.yaml_reader import parse_space


def spaces_folders() -> tuple[Path, ...]:
    """Return where spaces are found by name: below the current folder, then the shipped ones.

    Those are in the package where a wheel was installed, and beside it in a checkout.
    """
    package = Path(str(files("carray"))).resolve()
    own = package if (package / "search_spaces").is_dir() else package.parent
    return tuple(dict.fromkeys(root / "search_spaces" for root in (Path.cwd(), own)))


def shipped_spaces() -> list[Path]:
    """Return every space of `spaces_folders`, by name; the first of a name wins."""
    found: dict[str, Path] = {}
    for folder in spaces_folders():
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return [found[name] for name in sorted(found)]


def find_space(path: str | os.PathLike[str]) -> Path:
    """Return the file at `path`, else the one of that name in `spaces_folders`.

    Raises:
        ConfigError: there is neither; the message says which there are.
    """
    given = Path(path).expanduser()
    if given.is_file():
        return given.resolve()
    known = {file.stem: file for file in shipped_spaces()}
    if given.stem in known and given.parent.name in ("", "search_spaces"):
        return known[given.stem]
    hint = did_you_mean(given.stem, known) or f"; there are {', '.join(known) or 'none'}"
    raise ConfigError(f"there is no search space {str(path)!r}{hint}")


def load_space(path: str | os.PathLike[str]) -> SearchSpace:
    """Read and check the YAML file at `path`, or the one that `find_space` knows by name.

    Raises:
        ConfigError: there is no such file, or it has mistakes; all are named with their lines.
    """
    file = find_space(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the search space {file} can't be read: {error}") from None
    return parse_space(text, str(path))
