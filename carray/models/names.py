"""Which words may be the names of backbones, told without importing torch and timm."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

HUB = "hf-hub:"  # before a name of Hugging Face's hub
OLD_HUB = "hf_hub:"  # as timm wrote it once
SMALL_NET, CARS_NETS = "small_car_cnn", ("baseline_cars_cnn", "improved_cars_cnn")  # our own
SCRATCH = Path(__file__).with_name("scratch.py")  # whose nets timm knows once it is imported


def may_be_backbone(name: str) -> bool:
    """Say whether timm's sources, or our own, have a function or a text of this name.

    Every backbone is the one and every older name of it the other; a name that is neither needs no
    import to be refused. Of any other, `carray.models.registry` knows what it is.
    """
    word = name.rpartition("/")[2].partition(".")[0]  # without the hub's folder and tag
    named = re.compile(r"def {0}\(|['\"]{0}['\"]".format(re.escape(word)))
    timm = find_spec("timm")
    folders = (timm and timm.submodule_search_locations) or ()
    sources = [file for folder in folders for file in Path(folder, "models").glob("*.py")]
    texts = (file.read_text("utf-8") for file in [SCRATCH, *sources])
    return any(word in text and named.search(text) for text in texts)  # most texts lack the word
