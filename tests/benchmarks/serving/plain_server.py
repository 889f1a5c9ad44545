"""What many write to serve a model: FastAPI, Pillow, torch, one image at a time.

    python tests/benchmarks/serving/plain_server.py PACKAGE PORT

The other side of `bench_serving.py`: the same weights at the same size, no batches, no limits, no
calibrated sets. FastAPI runs each request in a thread of its own.
"""

from __future__ import annotations

import sys
from typing import Annotated

import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from torchvision import transforms

from carray.inference.predictor import load_model


def main() -> None:
    package, port = sys.argv[1], int(sys.argv[2])
    loaded = load_model(package, "cpu")
    (member,) = loaded.members
    spec, classifier = member.card.input, member.classifier.eval()
    to_tensor = transforms.Compose(
        [
            transforms.Resize((spec.size, spec.size)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    app = FastAPI()

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/predict")
    def predict(images: Annotated[UploadFile, File()]) -> dict[str, list[dict[str, float]]]:
        with Image.open(images.file) as image, torch.inference_mode():
            logits = classifier(to_tensor(image.convert("RGB"))[None])
            top = logits.softmax(1)[0].topk(min(5, logits.shape[1]))
        names = [loaded.classes[place] for place in top.indices.tolist()]
        found = zip(names, top.values.tolist(), strict=True)
        return {"images": [{name: p} for name, p in found]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
