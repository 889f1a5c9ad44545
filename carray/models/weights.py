"""Pretrained weights: where they are, what they are, and whether they fit. No pickle is loaded."""

from __future__ import annotations

import json
import os
import pickle
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from carray.errors import WeightsError, counted
from carray.files import sha256_of
from carray.models.hub import REACH_SECONDS, hub_error
from carray.models.registry import full_name, old_names, source_config

SUFFIXES = (".safetensors", ".pth")
OTHER_SUFFIXES = (".pt", ".bin")  # what others call a `.pth`
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DDP, torch.compile, Lightning
LOCAL_FOLDER = "local-dir:"
NONE_PUBLIC = "none are public"
RGB = tuple[float, float, float]
PathLike = str | os.PathLike[str]


def find_weights(
    backbone: str, pretrained: bool | str, folder: PathLike | None = None
) -> Path | None:
    """Return the local file that `pretrained` means, or None where the hub has to be asked.

    `true` looks in `folder`, or `$CARRAY_WEIGHTS` where that is None, for the backbone's name with
    its tag, then without.

    Raises:
        WeightsError: a file or folder is named and isn't there, or holds none for this backbone.
    """
    if isinstance(pretrained, bool):
        where = folder or os.environ.get("CARRAY_WEIGHTS")
        return _in_folder(Path(where).expanduser(), backbone) if pretrained and where else None
    if pretrained.startswith(LOCAL_FOLDER):
        named = Path(pretrained.removeprefix(LOCAL_FOLDER)).expanduser()
        found = _in_folder(named, backbone)
        if found is None:
            raise WeightsError(_nothing_in(named, backbone))
        return found
    return _checked_file(Path(pretrained).expanduser())


def _checked_file(file: Path) -> Path:
    if file.suffix not in SUFFIXES and not (file.suffix in OTHER_SUFFIXES and file.is_file()):
        raise WeightsError(
            f"pretrained={str(file)!r} must be true, false, a .safetensors or .pth file, or "
            f"{LOCAL_FOLDER}FOLDER"
        )
    if not file.is_file():
        raise WeightsError(f"there are no weights at {file}; give the path of a file that exists")
    return file


def _candidates(folder: Path, backbone: str) -> Iterator[Path]:
    present = full_name(backbone)
    names = dict.fromkeys((present, *old_names(present), present.partition(".")[0]))
    for name in names:
        yield from (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    if (folder / "config.json").is_file():  # a folder as timm saves it for its hub
        yield from (folder / f"{stem}{end}" for stem in ("model",) for end in SUFFIXES)


def _in_folder(folder: Path, backbone: str) -> Path | None:
    return next((file for file in _candidates(folder, backbone) if file.is_file()), None)


def _nothing_in(folder: Path, backbone: str) -> str:
    if not folder.is_dir():
        return f"there is no folder of weights at {folder}; create it or mend the path"
    there = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
    return (
        f"{folder} holds no weights for backbone {backbone!r} (it holds "
        f"{', '.join(there) or 'none'}); save them there as {_file_name(backbone)}"
    )


def obtain_weights(backbone: str, pretrained: bool | str, folder: PathLike | None = None) -> Path:
    """Return a local file with the weights; the hub's is taken from its cache or downloaded.

    `folder` is looked in first, as `find_weights` says.

    Raises:
        WeightsError: they can't be had; the message says how to bring them.
    """
    if found := find_weights(backbone, pretrained, folder):
        return found
    with _said_where(folder):
        return _from_hub(backbone)


@contextmanager
def _said_where(folder: PathLike | None) -> Iterator[None]:
    """Add to what the hub lacks in which folder of weights was looked before, if any."""
    try:
        yield
    except WeightsError as error:
        where = folder or os.environ.get("CARRAY_WEIGHTS")
        if not where:
            raise
        found = "holds none for it" if Path(where).expanduser().is_dir() else "isn't there"
        raise WeightsError(f"{error}; the folder {where} {found}") from None


def check_obtainable(backbone: str, pretrained: bool | str, folder: PathLike | None = None) -> None:
    """Refuse weights that `obtain_weights` couldn't get; nothing is downloaded.

    Raises:
        WeightsError: they are neither in a file nor in the hub's cache, and the hub doesn't answer.
    """
    if find_weights(backbone, pretrained, folder) or _is_downloaded(backbone):
        return
    source = source_config(backbone)
    with _said_where(folder):
        if not source.get("hf_hub_id") and not source.get("url"):
            raise _unavailable(backbone, NONE_PUBLIC)
        if why := hub_error(None if source.get("hf_hub_id") else source.get("url")):
            raise _unavailable(backbone, why)


def _is_downloaded(backbone: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    source = source_config(backbone)
    repository, _, revision = str(source.get("hf_hub_id") or "").partition("@")
    if not repository:
        return bool(source.get("url")) and _url_file(str(source["url"])).is_file()
    found = (
        try_to_load_from_cache(repository, name, revision=revision or None)
        for name in _hub_files(source.get("hf_hub_filename"))
    )
    return any(isinstance(each, str) for each in found)


def _from_hub(backbone: str) -> Path:
    source = source_config(backbone)
    if repository := source.get("hf_hub_id"):
        return _from_hugging_face(backbone, str(repository), source.get("hf_hub_filename"))
    if url := source.get("url"):
        return _from_url(backbone, str(url))
    raise _unavailable(backbone, NONE_PUBLIC)


def _from_hugging_face(backbone: str, repository: str, filename: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = repository.partition("@")
    names = _hub_files(filename)
    for local_only in (True, False):
        if not local_only and (why := hub_error()):
            raise _unavailable(backbone, why)
        for name in names:
            try:
                return Path(
                    hf_hub_download(
                        repository, name, revision=revision or None, local_files_only=local_only
                    )
                )
            except EntryNotFoundError:
                continue
            except OSError as error:
                raise _unavailable(backbone, str(error).splitlines()[0]) from None
    raise _unavailable(backbone, f"{repository} holds none of {', '.join(names)}")


def _hub_files(filename: str | None) -> list[str]:
    return [filename] if filename else ["model.safetensors", "pytorch_model.bin"]


def _url_file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _from_url(backbone: str, url: str) -> Path:
    file = _url_file(url)
    if file.is_file():
        return file
    try:
        urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except OSError as error:
        raise _unavailable(backbone, f"{url} can't be reached: {error}") from None
    return file


def _file_name(backbone: str) -> str:
    """Return what a file of a backbone's weights is called; timm tags what has none `untrained`."""
    return f"{full_name(backbone).removesuffix('.untrained')}.safetensors"


def _unavailable(backbone: str, why: str) -> WeightsError:
    return WeightsError(
        f"no weights for backbone {backbone!r} ({why}); bring {_file_name(backbone)} in the "
        "folder $CARRAY_WEIGHTS, or set pretrained to a .safetensors file, local-dir:FOLDER "
        "or false"
    )


def normalisation(file: Path | None) -> tuple[RGB, RGB] | None:
    """Return the (mean, std) that stand beside a file of weights, None where nothing does.

    They are read from the file's own safetensors metadata, from `NAME.json` beside it, or from
    timm's `config.json` in its folder.
    """
    if file is None:
        return None
    beside = [file.with_suffix(".json")]
    if file.stem == "model":
        beside.append(file.with_name("config.json"))
    for found in (_metadata(file), *(_json(path) for path in beside)):
        found = found.get("pretrained_cfg", found)
        if "mean" in found and "std" in found:
            return _rgb(found["mean"], file), _rgb(found["std"], file)
    return None


def _rgb(value: Any, file: Path) -> RGB:
    numbers = json.loads(value) if isinstance(value, str) else value
    try:
        red, green, blue = (float(number) for number in numbers)
    except (TypeError, ValueError):
        raise WeightsError(f"mean and std beside {file} must be 3 numbers, not {value!r}") from None
    return red, green, blue


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read: {error}") from None
    return value if isinstance(value, dict) else {}


def _metadata(file: Path) -> dict[str, Any]:
    if file.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} can't be read as safetensors: {error}") from None


def weights_name(backbone: str, file: Path) -> str:
    """Name what a file holds: the hub's are all called `model.safetensors`."""
    is_generic = file.stem in ("model", "pytorch_model")
    return full_name(backbone) if is_generic else file.stem


def weights_hash(file: Path) -> str:
    """Return the first 8 hex digits of the file's SHA-256."""
    stat = file.stat()
    return _hash(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _hash(file: Path, mtime_ns: int, size: int) -> str:
    return sha256_of(file)[:8]


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read {name: tensor} onto the CPU.

    Raises:
        WeightsError: the file can't be read, or would run code when read.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{file} holds more than tensors and is not loaded, since a pickle may run any code; "
            "save its state_dict as .safetensors"
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{file} can't be read as weights: {error}") from None
    return _state_of(loaded, file)


def _state_of(loaded: Any, file: Path) -> dict[str, Tensor]:
    while wrapped := [key for key in WRAPPERS if _is_wrapper(loaded, key)]:
        loaded = loaded[wrapped[0]]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{file} holds a {type(loaded).__name__}, not {{name: tensor}}")
    return _unprefixed({name: v for name, v in loaded.items() if isinstance(v, Tensor)})


def _is_wrapper(loaded: Any, key: str) -> bool:
    return isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping)


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away, again and again, a prefix that all names share; counters beside them go too."""
    for prefix in PREFIXES:
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner and all(k.startswith(prefix) or v.ndim == 0 for k, v in state.items()):
            return _unprefixed(inner)
    return state


def backbone_weights(
    backbone: nn.Module, name: str, state: Mapping[str, Tensor], file: Path
) -> dict[str, Tensor]:
    """Return the part of `state` that `backbone` takes, every tensor checked.

    The file's classifier is left out; timm's own filter adapts position embeddings to the size.
    The backbone may be on the meta device, so that nothing is allocated but the file's tensors.

    Raises:
        WeightsError: a tensor is missing, left over or of another shape; both sides are named.
    """
    expected = backbone.state_dict()
    found = _drop_classifier(_filtered(backbone, name, _own_part(state), file), name, expected)
    if not found.keys() & expected.keys() and (inner := _below_one(state)):
        return backbone_weights(backbone, name, inner, file)
    wrong = [
        f"{key} is {tuple(found[key].shape)} in the file and {tuple(value.shape)} in the backbone"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    wrong += [f"{key} is not in the file" for key in expected if key not in found and _needed(key)]
    wrong += [f"{key} is not in the backbone" for key in found if key not in expected]
    if wrong:
        raise WeightsError(
            f"the weights {file} don't fit backbone {name!r}: {wrong[0]}"
            + (f", and {counted(len(wrong) - 1, 'more tensor')}" if len(wrong) > 1 else "")
            + "; name the backbone they were made for, or other weights"
        )
    return {key: found[key] for key in expected if key in found}


def _own_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the backbone out of a classifier that carray saved."""
    inner = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    return inner or dict(state)


def _below_one(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take away the first part of names that all tensors share, {} where they don't."""
    first = {name.partition(".")[0] for name, value in state.items() if value.ndim}
    return {n.partition(".")[2]: v for n, v in state.items() if "." in n} if len(first) == 1 else {}


def _filtered(
    backbone: nn.Module, name: str, state: dict[str, Tensor], file: Path
) -> dict[str, Tensor]:
    """Let timm rename and resize what its older files hold otherwise."""
    module = sys.modules[type(backbone).__module__]
    adapt = getattr(module, "checkpoint_filter_fn", getattr(module, "_filter_fn", None))
    if adapt is None:
        return state
    try:
        return dict(adapt(state, backbone))
    except (KeyError, RuntimeError, AssertionError, IndexError, ValueError) as error:
        raise WeightsError(f"the weights {file} don't fit backbone {name!r}: {error}") from None


def _drop_classifier(
    state: dict[str, Tensor], name: str, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    named = source_config(name).get("classifier") or ()
    named = (named,) if isinstance(named, str) else tuple(named)
    prefixes = tuple(f"{part}." for part in (*named, "classifier", "fc", "head", "head_dist"))
    return {
        key: value
        for key, value in state.items()
        if key in expected or not (key.startswith(prefixes) or not _needed(key))
    }


def _needed(key: str) -> bool:
    """Say whether a missing or left-over tensor matters: counters and index tables don't."""
    return not key.endswith(
        ("num_batches_tracked", "relative_position_index", "attn_mask", "mask_token")
    )
