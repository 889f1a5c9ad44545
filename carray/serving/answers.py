"""What a server says, typed: its OpenAPI page shows these."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, Field

from carray.inference.neighbours import Neighbour, looker
from carray.predictions.levels import LevelAnswer, LevelReader
from carray.serving.served import Said, Version


class Guess(BaseModel):
    """One class and how likely it is."""

    name: str = Field(description="The class, as the training data name it.")
    probability: float = Field(description="From 0 to 1, calibrated where the model is.")


class Level(BaseModel):
    """What is likeliest at one level of the classes' names."""

    level: str = Field(description="make, model, generation, body or year.")
    name: str = Field(description="Down to this level, as in `Audi TT`.")
    probability: float = Field(description="The sum of its classes' own.")


class Similar(BaseModel):
    """A training image that the model finds like the one sent."""

    name: str = Field(description="Its class.")
    similarity: float = Field(description="The cosine of both images' features, at most 1.")
    picture: str = Field(description="A small JPEG, as a data URL.")


class Heat(BaseModel):
    """Where the model looked."""

    picture: str = Field(
        description="A square JPEG, as a data URL: what the model saw, coloured where it speaks "
        "for the likeliest class."
    )
    squashed: bool = Field(description="Whether that is the whole image, squashed to a square.")


class ImageAnswer(BaseModel):
    """What is said of one image."""

    image: str = Field(description="The file's name as it was sent, else its place.")
    classes: list[Guess] = Field(description="The likeliest classes, the likeliest first.")
    set: list[str] | None = Field(
        None, description="Classes among which the right one is, as often as `coverage` says."
    )
    coverage: float | None = Field(None, description="How often the set holds the right class.")
    unknown: bool | None = Field(
        None,
        description="Whether the image is like nothing that the model was trained on; null where "
        "the model can't say.",
    )
    answer: Level | None = Field(
        None,
        description="At the `level` asked for, or at the deepest that is sure, as in `Audi TT, "
        "year unsure`; where nothing is, `name` is `unsure` and `level` empty.",
    )
    sure_of: str | None = Field(
        None, description="No deeper than the model is sure: `Audi TT, year unsure`."
    )
    levels: list[Level] | None = Field(None, description="Where class names tell them.")
    neighbours: list[Similar] | None = Field(None, description="The nearest, where asked for.")
    heat: Heat | None = Field(None, description="Where asked for.")


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
    knows_unknown: bool = Field(description="Whether it can say that an image is like no class.")
    levels: tuple[str, ...] = Field(description="Of its classes' names, the coarsest first.")
    is_calibrated: bool = Field(description="Whether its probabilities were fitted to photographs.")
    has_neighbours: bool = Field(description="Whether it can show the nearest training images.")


class Problem(BaseModel):
    """Why a request isn't answered: what was sent, the rule, and what to do."""

    detail: str


def image_answer(
    image: str, said: Said, version: Version, top: int, reader: LevelReader | None = None
) -> ImageAnswer:
    """Return the `top` likeliest classes of an image, and all else that the version can say.

    `reader` answers at the level that was asked for.
    """
    p_C, classes = said.probabilities, version.model.classes
    order = np.argsort(-p_C, kind="stable").tolist()
    answer = ImageAnswer(
        image=image,
        classes=[
            Guess(name=classes[place], probability=float(p_C[place])) for place in order[:top]
        ],
        heat=_heat(said.heat, version),
        neighbours=[_similar(each, classes) for each in said.neighbours] or None,
    )
    if version.levels:
        (sure,) = version.levels.answers(p_C[None])
        answer.sure_of = sure.text
        answer.levels = [_level(each) for each in version.levels.likeliest(p_C)]
    if reader:
        answer.answer = _level(reader.answers(p_C[None])[0])
    if reliability := version.reliability:
        held = reliability.sets(p_C[None])[0]
        answer.set = [classes[place] for place in order if held[place]]
        answer.coverage = reliability.coverage
        if reliability.energy_limit is not None:  # else nothing can be said
            answer.unknown = bool(reliability.unknown(np.array([said.energy], np.float32))[0])
    return answer


def _level(said: LevelAnswer) -> Level:
    return Level(level=said.level, name=said.text, probability=said.probability)


def _similar(found: Neighbour, classes: Sequence[str]) -> Similar:
    name = classes[found.label]
    return Similar(name=name, similarity=found.similarity, picture=_data_url(found.picture))


def _heat(picture: bytes | None, version: Version) -> Heat | None:
    if picture is None:
        return None
    _, fit = looker(version.model).geometry
    return Heat(picture=_data_url(picture), squashed=fit == "squash")


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
