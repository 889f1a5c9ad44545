"""Which words of a table stand for which split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from carray.data.manifest import SPLITS
from carray.data.preparation.sources.listing import split_of
from carray.data.preparation.sources.table_file import Table
from carray.errors import DataError

SPLIT_COLUMNS = ("split", "subset")
FLAGS = {  # a column of yes and no: the split of yes, and that of no
    "is_train": ("train", "test"),
    "is_training": ("train", "test"),
    "is_training_image": ("train", "test"),
    "is_test": ("test", "train"),
    "test": ("test", "train"),
    "is_val": ("val", "train"),
    "is_valid": ("val", "train"),
}
CUT = ("train", "val", "test")  # what words may mean, to show how that is said
YES_AND_NO = {"1": 0, "true": 0, "yes": 0, "0": 1, "false": 1, "no": 1}


@dataclass(frozen=True)
class SplitColumn:
    """A column that tells splits, "" for none, and what its words stand for."""

    name: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    """Word in small letters -> split, "" where it is unknown."""

    def tells_all(self) -> bool:
        """Say whether every word is known, for train and for other splits."""
        splits = set(self.words.values())
        return "train" in splits and "" not in splits and len(splits) > 1

    def sentence(self) -> str:
        """Say what was taken: `set (0 for train, 1 for val)`; words that are splits go unsaid."""
        odd = [
            f"{word} for {split}" for word, split in self.words.items() if split not in ("", word)
        ]
        return f"{self.name} ({', '.join(odd)})" if odd else self.name


def read_split_words(text: str | None) -> dict[str, str]:
    """Read `0=train,1=val`: {word in small letters: split}.

    Raises:
        DataError: a part is no `WORD=SPLIT`.
    """
    words = {}
    for part in (text or "").split(",") if text else ():
        word, _, split = part.strip().rpartition("=")
        if not word or split not in SPLITS:
            raise DataError(
                f"--split-words {part.strip()!r} must be WORD=SPLIT, the split one of "
                f"{', '.join(SPLITS)}"
            )
        words[word.strip().lower()] = split
    return words


def split_column(table: Table, taken: Sequence[str], own: Mapping[str, str]) -> SplitColumn:
    """Return the column that tells splits: `split`, or one whose every cell is a split's word, or
    yes and no in one such as `is_test`; `taken` are others, `own` a person's words.

    Raises:
        DataError: none of its words is known, or two columns tell other splits.
    """
    free = [name for name in table.columns if name not in taken]
    named = [name for name in table.known_as(SPLIT_COLUMNS) if name in free]
    columns = [SplitColumn(name, _words(table, name, own)) for name in named or free]
    telling = columns if named else [column for column in columns if column.tells_all()]
    _check_own(table, telling, own)
    _refuse_two(table, telling)
    if not telling:
        return SplitColumn()
    words = telling[0].words
    if words and not any(words.values()):
        some = list(words)[:5]
        example = ",".join(f"{word}={split}" for word, split in zip(some, CUT, strict=False))
        raise DataError(
            f"the cells {', '.join(some)} of the column {telling[0].name} of {table.file} are no "
            f"splits: say what they mean with --split-words, perhaps --split-words {example}"
        )
    return telling[0]


def _words(table: Table, name: str, own: Mapping[str, str]) -> dict[str, str]:
    """Return what the words of a column stand for, "" for those that are unknown."""
    cells = sorted({cell.lower() for cell in table.cells(name)} - {""})
    flag = FLAGS.get(name.lower())
    if flag and not own and set(cells) <= set(YES_AND_NO):
        return {cell: flag[YES_AND_NO[cell]] for cell in cells}
    return {cell: own.get(cell) or split_of(cell) for cell in cells}


def splits_of(table: Table, column: SplitColumn) -> list[tuple[str, str]]:
    """Return each row's split and what is wrong with it, both "" where it has none."""
    if not column.name:
        return [("", "")] * len(table.rows)
    known = {word: (split, "") for word, split in column.words.items() if split} | {"": ("", "")}
    cells = [cell.lower() for cell in table.cells(column.name)]
    return [known.get(cell) or ("", f"the split {cell!r} is unknown") for cell in cells]


def _check_own(table: Table, telling: Sequence[SplitColumn], own: Mapping[str, str]) -> None:
    if own and not any(set(own) <= set(column.words) for column in telling):
        raise DataError(
            f"--split-words names {', '.join(own)}, which are not the cells of one column of "
            f"{table.file} that tells splits: name all of its words"
        )


def _refuse_two(table: Table, telling: Sequence[SplitColumn]) -> None:
    for other in telling[1:]:
        if splits_of(table, other) != splits_of(table, telling[0]):
            raise DataError(
                f"the columns {telling[0].name} and {other.name} of {table.file} tell different "
                "splits: keep one of them"
            )
