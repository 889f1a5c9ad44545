"""The fifteen lines that ask an exported ONNX file, without carray and without torch."""

from __future__ import annotations

from pathlib import Path
from string import Template

READ = """\
    image = Image.open(path)
    if image.mode != "CMYK": image.draft("RGB", ($side, $side))  # a large JPEG is read smaller
    image = ImageOps.exif_transpose(image)
    if image.mode[0] == "I":  # grey of up to 16 bits: the upper 8 of those in use
        spare = max(0, image.getextrema()[1].bit_length() - 7) // 2 * 2
        image = Image.fromarray((numpy.asarray(image) >> spare).astype("uint8"))
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    (p,) = session.run(None, {"images": numpy.asarray(image.convert("RGB"))[None]})[0]
"""
"""Lines from an image file at `path` to probabilities `p`, read as in training."""

EXAMPLE = '''"""Name the class of photographs. Needs: pip install onnxruntime pillow"""
import json, numpy, onnxruntime, pathlib, sys
from PIL import Image, ImageOps
session = onnxruntime.InferenceSession(pathlib.Path(__file__).with_name("$file"))
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
for path in sys.argv[1:]:
$read\
    print(*(f"{path}\\t{classes[i]}\\t{p[i]:.4f}" for i in p.argsort()[::-1][:3]), sep="\\n")
'''


def write_example(file: Path, side: int) -> Path:
    """Write the example beside an ONNX file that takes squares of `side`; return its path."""
    example = file.with_name(f"{file.stem}_example.py")
    read = Template(READ).substitute(side=side)
    text = Template(EXAMPLE).substitute(file=file.name, read=read)
    example.write_text(text, encoding="utf-8")
    return example
