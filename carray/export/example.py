"""The fifteen lines that ask an exported ONNX file, without carray and without torch."""

from __future__ import annotations

from pathlib import Path
from string import Template

EXAMPLE = Template('''"""Name the class of photographs. Needs: pip install onnxruntime pillow"""
import json, sys
from pathlib import Path
import numpy, onnxruntime
from PIL import Image, ImageOps

file = Path(__file__).with_name("$file")
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, side = json.loads(about["classes"]), int(about["side"])
for path in sys.argv[1:]:
    image = Image.open(path)
    image.draft("RGB", (side, side))  # a large JPEG is decoded smaller, as carray does
    image = ImageOps.exif_transpose(image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    (p,) = session.run(None, {"images": numpy.asarray(image)[None]})[0]
    for place in p.argsort()[::-1][:3]:
        print(f"{path}\\t{classes[place]}\\t{p[place]:.4f}")
''')


def write_example(file: Path) -> Path:
    """Write the example beside an ONNX file; return its path."""
    example = file.with_name(f"{file.stem}_example.py")
    example.write_text(EXAMPLE.substitute(file=file.name), encoding="utf-8")
    return example
