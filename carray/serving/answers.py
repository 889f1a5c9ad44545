"""What a server says, typed: its OpenAPI page shows these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, Field

from carray.inference.reliability import Reliability
from carray.typing import Float32s


class Guess(BaseModel):
    """One class and how likely it is."""

    name: str = Field(description="The class, as the training data name it.")
    probability: float = Field(description="Calibrated, from 0 to 1.")


class ImageAnswer(BaseModel):
    """What is said of one image."""

    image: str = Field(description="The file's name as it was sent, else its place.")
    classes: list[Guess] = Field(description="The likeliest classes, the likeliest first.")
    set: list[str] | None = Field(
        None, description="Classes among which the right one is, as often as `coverage` says."
    )
    coverage: float | None = Field(None, description="How often the set holds the right class.")
    unknown: bool | None = Field(
        None, description="Whether the image is like nothing that the model was trained on."
    )


class Answer(BaseModel):
    """The answer to a request."""

    model: str = Field(description="The model's name.")
    version: int = Field(description="Which version of that name answered.")
    images: list[ImageAnswer] = Field(description="In the order in which they were sent.")
    milliseconds: float = Field(description="From the whole request to this answer.")


class ModelCard(BaseModel):
    """A model that can be asked."""

    name: str
    version: int
    classes: list[str]
    what: str = Field(description="What it is made of.")


class Problem(BaseModel):
    """Why a request isn't answered: what was sent, the rule, and what to do."""

    detail: str


def image_answer(
    image: str,
    p_C: Float32s,
    energy: float,
    classes: Sequence[str],
    top: int,
    reliability: Reliability | None,
) -> ImageAnswer:
    """Return the `top` likeliest classes of an image; a set and "unknown" of a calibrated model."""
    order = np.argsort(-p_C, kind="stable")
    guesses = [
        Guess(name=classes[place], probability=float(p_C[place])) for place in order[:top].tolist()
    ]
    if reliability is None:
        return ImageAnswer(image=image, classes=guesses)
    held = reliability.sets(p_C[None])[0]
    return ImageAnswer(
        image=image,
        classes=guesses,
        set=[classes[place] for place in order.tolist() if held[place]],
        coverage=reliability.coverage,
        unknown=bool(reliability.unknown(np.array([energy], np.float32))[0]),
    )
