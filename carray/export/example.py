"""The fifteen lines that ask an exported ONNX file, without carray and without torch."""

from __future__ import annotations

from pathlib import Path
from string import Template

READ = """\
    if image.mode != "CMYK": image.draft("RGB", ($side, $side))  # a large JPEG is read smaller
    if image.mode == "F" or ";16" in str(image.tile) and numpy.max(image.convert("RGB")) < 64:
        $refuse(f"{path} has neither 8 bits a colour nor all of 16: save it with 8")
    image = ImageOps.exif_transpose(image)
    if image.mode[0] == "I":  # grey of up to 16 bits: the upper 8 of those in use
        spare = max(0, image.getextrema()[1].bit_length() - 7) // 2 * 2
        image = Image.fromarray((numpy.asarray(image) >> spare).astype("uint8"))
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    (p,) = session.run(None, {"images": numpy.asarray(image.convert("RGB"))[None]})[0]
"""
"""Lines from the `image` that Pillow opened at `path` to probabilities `p`, read as in training.

Of deep colours Pillow keeps the upper byte, which is black where a camera filled 12 bits of 16.
"""

EXAMPLE = '''"""Name the class of photographs. Needs: pip install onnxruntime pillow"""
import json, numpy, onnxruntime, pathlib, sys, PIL.Image as Image, PIL.ImageOps as ImageOps
session = onnxruntime.InferenceSession(pathlib.Path(__file__).with_name("$file"))
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
for path, image in zip(sys.argv[1:], map(Image.open, sys.argv[1:])):
$read\
    print(*(f"{path}\\t{classes[i]}\\t{p[i]:.4f}" for i in p.argsort()[::-1][:3]), sep="\\n")
'''


def write_example(file: Path, side: int) -> Path:
    """Write the example beside an ONNX file that takes squares of `side`; return its path."""
    example = file.with_name(f"{file.stem}_example.py")
    read = Template(READ).substitute(side=side, refuse="sys.exit")
    text = Template(EXAMPLE).substitute(file=file.name, read=read)
    example.write_text(text, encoding="utf-8")
    return example
