"""Image folders: a folder per class, perhaps below `train`, `val` and `test`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from carray.data.pixels.decode import IMAGE_SUFFIXES
from carray.data.preparation.sources.listing import (
    Listing,
    SourceImage,
    class_name,
    nfc,
    ordered_unique,
    split_of,
    system_folders,
    visible_folders,
    walk_images,
)
from carray.errors import Complaints, DataError, counted, some_of

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
TABLES = (".csv", ".tsv", ".mat")  # beside class folders: perhaps what was meant
UNREAD = (  # photographs all the same, in small letters
    *(".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".raw"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
MAX_NAMED = 8
MAX_DEPTH = 6  # of class folders above splits


def list_folder(source: Path, level: int | None = None) -> Listing:
    """List `source/CLASS/...`, `source/SPLIT/CLASS/...` or `source/CLASS/SPLIT/...`.

    Args:
        source: the folder; if it holds nothing but one folder, and that at last one of splits,
            that one is read.
        level: how many levels of folders name a class, 2 for `MAKE/MODEL`; None for the first.

    Raises:
        DataError: there is no class folder, or the folder can be read in two ways. Of class folders
            that are empty or can't be read the listing's `faults` tell.
    """
    faults = Complaints()
    remarks = _passed_by(source)
    inner = _only_folder(source)
    if inner != source and not _splits_in(inner):
        _refuse_only_class(source, inner, level)
    elif inner != source:
        shown = inner.relative_to(source).as_posix()
        remarks.append(f"{shown}/ is the only folder and was read as the source")
        source = inner
    splits = _splits_in(source)
    depth = 0 if splits else _above_splits(source)
    images: list[SourceImage] = []
    if splits:
        kind = "split folder"
        complaints = Complaints()
        for folder in visible_folders(source):
            if folder not in splits:
                remarks.append(f"{folder.name}/ is no split and was passed by")
                continue
            with complaints.heard():
                found, notes = _list_split(source, folder, splits[folder], level or 1, faults)
                images, remarks = images + found, remarks + notes
        _refuse_with(complaints, faults)
        remarks += _split_words(splits)
    elif depth:
        kind = "split folder"
        images = _list_classes_of_splits(source, depth, level or 1)
        remarks.append(f"class folders hold their own splits: {'CLASS/' * depth}SPLIT")
    else:
        kind = "folder"
        if level is None:
            _refuse_split_among_classes(source)
        images, notes = _list_classes(source, source, "", level or 1, faults)
        remarks += _loose_images(source) + notes
    if level is None:
        complaints = Complaints()
        with complaints.heard():
            at = depth if kind == "split folder" else None
            remarks += _levels(source, [_class_folders(source, one.path, at) for one in images])
        _refuse_with(complaints, faults)
    return Listing(kind, source, ordered_unique(images), notes=tuple(remarks), faults=faults.errors)


def _refuse_with(complaints: Complaints, faults: Complaints) -> None:
    """Raise `complaints`, if there are any, and what else is known to be wrong."""
    if complaints:
        complaints.add(faults.errors)
        complaints.refuse()


def _splits_in(source: Path) -> dict[Path, str]:
    """Return {folder: split} where the folders in `source` are splits, {} where they are classes.

    `train` says so; names that only contain such a word (`cars_train`) do if all folders have one.
    """
    folders = visible_folders(source)
    named = {path: split for path in folders if (split := split_of(path.name))}
    plain = {path: split for path, split in named.items() if split_of(path.name, plain=True)}
    if len(named) == len(folders) and "train" in named.values():
        return named
    has_classes = any(split == "train" and visible_folders(path) for path, split in plain.items())
    return plain if has_classes else {}


def _split_words(splits: dict[Path, str]) -> list[str]:
    taken = [f"{path.name}/ for {split}" for path, split in splits.items()]
    odd = any(not split_of(path.name, plain=True) for path in splits)
    return [f"taken for splits: {', '.join(taken)}"] if odd else []


def _only_folder(source: Path) -> Path:
    """Go down as long as a folder holds one folder, which is no split, and no image."""
    folders = visible_folders(source)
    if len(folders) != 1 or split_of(folders[0].name) or _images_in(source):
        return source
    return _only_folder(folders[0])


def _refuse_split_among_classes(source: Path) -> None:
    """Refuse a folder that bears a split's name among others that are no splits.

    Raises:
        DataError: there is one; it may be a class, or images without labels.
    """
    folders = [path.name for path in visible_folders(source)]
    if named := [name for name in folders if split_of(name, plain=True)]:
        raise DataError(
            f"{source} may be read in two ways: {', '.join(named)} among its folders "
            "may be a split or a class: for a class give --level 1, for splits put the class "
            "folders to train on into a folder that is called train, else move it away"
        )


def _refuse_only_class(source: Path, folder: Path, level: int | None) -> None:
    inner = visible_folders(folder)
    tables = _tables_in(folder.parent)
    if not inner and tables:
        raise DataError(
            f"the only folder {folder.name} in {folder.parent} holds no class folders, and "
            f"{', '.join(path.name for path in tables)} beside it: give the table, as "
            f"{_likeliest(tables)} --images {folder}"
        )
    if len(inner) > 1 and level in (None, 1):
        raise DataError(
            f"there is only the class {class_name(folder.name)!r}, and {len(inner)} folders are in "
            f"it, as {inner[0].name}: at least 2 are needed; if those are the classes, give "
            f"{folder}, or --level {len(inner[0].relative_to(source).parts)}"
        )


def _list_split(
    source: Path, folder: Path, split: str, level: int, faults: Complaints
) -> tuple[list[SourceImage], list[str]]:
    inner = visible_folders(folder)
    if len(inner) == 1 and split_of(inner[0].name):
        tables = _tables_beside(source)
        raise DataError(
            f"{folder.name}/{inner[0].name} in {source} holds images without class folders"
            + (f"; {', '.join(tables)} beside it doesn't name them" if tables else "")
            + ": give a folder per class, or for Stanford Cars put cars_meta.mat and "
            "cars_train_annos.mat beside the images"
        )
    if split == "test" and not inner and (flat := walk_images(folder)[0]):
        return [], [
            f"{folder.name}/ holds {counted(len(flat), 'image')} without class folders, left out "
            "for want of labels"
        ]
    return _list_classes(source, folder, split, level, faults)


def _above_splits(source: Path) -> int:
    """Return how many levels of class folders lie above splits: 1 for `CLASS/train`, 2 for
    `MAKE/MODEL/train`; 0 where not every folder of a level holds splits and nothing else.
    """
    folders = visible_folders(source)
    for depth in range(1, MAX_DEPTH):
        inner = [visible_folders(folder) for folder in folders]
        if not inner or not all(inner):
            return 0
        words = [{split_of(path.name) for path in each} for each in inner]
        if all({"train"} < splits and "" not in splits for splits in words):
            return depth
        folders = [path for each in inner for path in each]
    return 0


def _list_classes_of_splits(source: Path, depth: int, level: int) -> list[SourceImage]:
    images: list[SourceImage] = []
    for path in (path for folder in visible_folders(source) for path in walk_images(folder)[0]):
        folders = path.relative_to(source).parts[:-1]
        if len(folders) <= depth:
            raise DataError(
                f"{path.parent} holds images beside its folders of splits: move them into one of "
                "these"
            )
        label = _label(path, _class_folders(source, path, depth), level)
        images.append(_image(source, path, label, split_of(folders[depth])))
    return images


def _class_folders(source: Path, path: Path, split_at: int | None = None) -> tuple[str, ...]:
    """Return the folders above an image that are no split; `split_at` says which one is."""
    names = path.relative_to(source).parts[:-1]
    return names if split_at is None else names[:split_at] + names[split_at + 1 :]


def _image(source: Path, path: Path, label: str, split: str) -> SourceImage:
    return SourceImage(nfc(path.relative_to(source).as_posix()), path, label, split)


def _list_classes(
    source: Path, folder: Path, split: str, level: int, faults: Complaints
) -> tuple[list[SourceImage], list[str]]:
    """List the class folders in `folder`; ids are paths below `source`.

    `faults` hears of folders that are empty or can't be read.

    Raises:
        DataError: no image is in a class folder.
    """
    source_images: list[SourceImage] = []
    empty: list[Path] = []
    passed_by: Counter[str] = Counter()
    own = Complaints()
    for class_folder in visible_folders(folder):
        with own.heard():
            images, others = walk_images(class_folder)
            passed_by += others
            empty += [] if images else [class_folder]
            source_images += [
                _image(source, path, _label(path, _class_folders(folder, path), level), split)
                for path in images
            ]
    with own.heard():
        _refuse_empty(source, empty)
    if not source_images:
        own.refuse()
        tables = [*_tables_in(folder), *_tables_in(source)]
        table = f"the table, as {_likeliest(tables)} --images {folder}" if tables else "a CSV"
        raise DataError(
            f"{folder} holds no class folders with images{_held_instead(folder)}: give a folder "
            f"per class, {table}, or Stanford Cars with its .mat files"
        )
    faults.add(own.errors)
    return source_images, _other_files(folder, passed_by) + _folders_of_one_class(folder)


def _other_files(folder: Path, endings: Counter[str]) -> list[str]:
    """Say which files among images were passed by; photographs of a kind that isn't read first."""
    unread = {ending: count for ending, count in endings.items() if ending.lower() in UNREAD}
    others = endings.total() - sum(unread.values())
    found = some_of(sorted(unread), MAX_NAMED)
    return [
        f"{counted(count, 'file')} in {folder} passed by: {why}"
        for count, why in (
            (sum(unread.values()), f"{found} isn't read, save as JPEG or PNG"),
            (others, "no image"),
        )
        if count
    ]


def _held_instead(folder: Path) -> str:
    """Say what lies in a folder in place of class folders: archives, or images."""
    packed = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in ARCHIVES)
    if packed:
        return f", but {some_of(packed, MAX_NAMED)}, which is to be unpacked first"
    loose = _images_in(folder)
    return (
        f", but {counted(len(loose), 'image')} that no folder names, as {loose[0]}" if loose else ""
    )


def _images_in(folder: Path) -> list[str]:
    files = (path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(name for name in files if not name.startswith("."))


def _loose_images(source: Path) -> list[str]:
    """Say which images lie beside the class folders."""
    loose = _images_in(source)
    many = counted(len(loose), "image lies", "images lie")
    return [f"{many} beside the class folders, so without a class: {loose[0]}"] if loose else []


def _folders_of_one_class(folder: Path) -> list[str]:
    """Say which folders are one class since their names are the same but for how letters are
    written: composed or not, or with what no terminal shows."""
    spelt: dict[str, int] = Counter(class_name(path.name) for path in visible_folders(folder))
    return [
        f"{count} folders are named {name!r}, but for how letters are stored: taken as one class"
        for name, count in spelt.items()
        if count > 1
    ]


def _label(path: Path, names: Sequence[str], level: int) -> str:
    if len(names) < level:
        raise DataError(
            f"--level {level} asks for {counted(level, 'level')} of class folders, but {path} is "
            f"in {len(names)}: move it, or ask for a lower level"
        )
    return " ".join(class_name(name) for name in names[:level])


def _refuse_empty(source: Path, empty: Sequence[Path]) -> None:
    if not empty:
        return
    names = some_of([repr(path.relative_to(source).as_posix()) for path in empty], MAX_NAMED)
    files = [path for folder in empty for path in folder.rglob("*") if path.is_file()]
    endings = Counter(path.suffix or "nothing" for path in files if path.name[0] != ".")
    them = "them" if len(empty) > 1 else "it"
    cure = f"fill or remove {them}"
    if endings:
        found = " and ".join(ending for ending, _ in endings.most_common(3))
        end = counted(endings.total(), "file there ends", "files there end")
        cure = f"{end} in {found}, which isn't read: "
        photos = any(ending == "nothing" or ending.lower() in UNREAD for ending in endings)
        cure += "save them as JPEG or PNG" if photos else f"fill {them}, or move {them} away"
        bare = [folder.name for folder in empty if not any(map(Path.is_file, folder.rglob("*")))]
        cure += f"; fill or remove {some_of(bare, MAX_NAMED)}" if bare else ""
    which = f"the class folder{'s' * (len(empty) > 1)} {names} in {source}"
    raise DataError(f"{which} hold{'s' * (len(empty) == 1)} no image: {cure}")


def _levels(source: Path, paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Say at which level classes were taken where folders go deeper."""
    deepest = min((len(names) for names in paths), default=1)
    if deepest < 2:
        deeper = ["/".join(names) for names in paths if len(names) > 1]
        return [f"folders in a class were taken as part of it, as {deeper[0]}"] if deeper else []
    counts = [len({names[: level + 1] for names in paths}) for level in range(deepest)]
    ways = [
        f"{counted(count, 'class')} {counted(level - 1, 'level')} down: --level {level}"
        for level, count in enumerate(counts[1:], 2)
    ]
    _refuse_same_names_below(source, paths, counts)
    first = f"{paths[0][0]!r} ({counted(counts[0], 'class')})"
    return [f"class level: the first, as {first}; {'; '.join(ways)}"]


def _refuse_same_names_below(
    source: Path, paths: Sequence[tuple[str, ...]], counts: Sequence[int]
) -> None:
    """Refuse folders that hold folders of the same names: these may be the classes.

    So it is where in half of the folders, or more, half of the names stand in others too: a test
    split may lack some classes, and makes may share the name of a model.

    Raises:
        DataError: `new/Audi`, `new/BMW`, `old/Audi` and `old/BMW` may be two classes in two ways.
    """
    below: dict[str, set[str]] = {}
    for names in paths:
        below.setdefault(names[0], set()).add(names[1])
    bearers = Counter(name for inner in below.values() for name in inner)
    shared = {name for name, count in bearers.items() if count > 1}
    alike = [upper for upper, inner in below.items() if 2 * len(inner & shared) >= len(inner)]
    if len(shared) < 2 or 2 * len(alike) < len(below):
        return
    upper, name = next((names[0], names[1]) for names in paths if names[1] in shared)
    other = next(each for each, inner in below.items() if each != upper and name in inner)
    raise DataError(
        f"{source} may be read in two ways, since {len(shared)} names stand in several of its "
        f"{len(below)} folders, as {upper}/{name} and {other}/{name}: give --level 1 where "
        f"{upper!r} is a class ({counts[0]} classes), --level 2 where '{upper} {name}' is "
        f"({counts[1]} classes; --merge makes one of several); where {upper!r} is a split, call "
        "it train, val or test"
    )


def _tables_beside(source: Path) -> list[str]:
    return sorted(path.name for path in source.iterdir() if path.suffix.lower() in TABLES)


def _tables_in(folder: Path) -> list[Path]:
    return [folder / name for name in _tables_beside(folder) if not name.endswith(".mat")]


def _likeliest(tables: Iterable[Path]) -> Path:
    """Return the table of the images to train on, or else the first."""
    return min(tables, key=lambda path: (split_of(path.stem) != "train", path.name))


def _passed_by(source: Path) -> list[str]:
    """Say which system folders and tables were not read."""
    remarks = []
    if hidden := system_folders(source):
        remarks.append(f"folders that systems leave were passed by: {', '.join(hidden)}")
    if tables := _tables_beside(source):
        remarks.append(
            f"{', '.join(tables[:MAX_NAMED])} beside the folders was not read: the folders name "
            "the classes"
        )
    return remarks
