"""A folder that a Hugging Face Space runs as it is: the model as ONNX, and a page by Gradio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

from carray.export.example import READ
from carray.export.verify import Judged
from carray.inference.card import Card

MODEL = "model.onnx"
GRADIO = "6.31.0"  # what `app.py` was tried with
REQUIREMENTS = "onnxruntime>=1.20\npillow>=11.0\nnumpy>=2.0\n"
APP = Template('''"""Name the class of a photograph: `python app.py`, or as a Hugging Face Space."""

import io
import json
from pathlib import Path

import gradio
import numpy
import onnxruntime
from PIL import Image, ImageOps

file = Path(__file__).with_name("model.onnx")
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, side = json.loads(about["classes"]), int(about["side"])


def answer(path: str) -> dict[str, float]:
    """Return the probability of each class."""
    image = Image.open(io.BytesIO(Path(path).read_bytes()))
$read\
    return {name.replace("_", " "): float(each) for name, each in zip(classes, p)}


page = gradio.Interface(
    fn=answer,
    inputs=gradio.Image(type="filepath", image_mode=None, label="Photograph"),  # the file as it is
    outputs=gradio.Label(num_top_classes=5, label="Class"),
    title=about["name"],
    description=f"Drop a photograph; {len(classes)} classes are known.",
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
''')
README = Template("""---
title: $title
emoji: 🚗
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: "$gradio"
app_file: app.py
pinned: false
---

$what. Here it runs as ONNX, without PyTorch.

| form | log-loss | top-1 | same likeliest class | MB |
|---|---|---|---|---|
$rows

On $photographs photographs of the $split split, which chose the members' weights.

Classes: $classes.
""")


def write_space(
    folder: Path, card: Card, forms: Sequence[Judged], split: str, photographs: int
) -> None:
    """Write everything but the model itself into `folder`."""
    rows = (
        f"| {form.form} | {form.log_loss:.4f} | {form.top1:.4f} | {form.agreement:.4f} | "
        f"{form.mb:.1f} |"
        for form in forms
    )
    readme = README.substitute(
        title=json.dumps(card.name, ensure_ascii=False),
        gradio=GRADIO,
        what=card.what,
        rows="\n".join(rows),
        photographs=photographs,
        split=split,
        classes=", ".join(card.classes),
    )
    app = APP.substitute(read=Template(READ).substitute(side="side", refuse="raise gradio.Error"))
    files = {"app.py": app, "requirements.txt": REQUIREMENTS, "README.md": readme}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
