"""How and by what a trial is computed, and what its backbone expects of images."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Part(BaseModel):
    """Base of every configuration: frozen; refuses unknown keys, NaN, infinity and true for 1."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name in _numbers_of(cls):
            raise ValueError("it is no number: write one")
        return value


@cache
def _numbers_of(part: type[Part]) -> set[str]:
    """Return the names of the fields that hold a number, and neither true nor false."""
    fields = part.model_fields.items()
    return {name for name, field in fields if is_number_type(field.annotation)}


def is_number_type(annotation: Any) -> bool:
    """Say whether a field so annotated takes a number, and neither true nor false."""
    kinds = {annotation, *get_args(annotation)}
    kinds |= {type(each) for each in kinds}  # of a Literal's values
    return not kinds.isdisjoint({int, float}) and bool not in kinds


class Compute(Part):
    """How a trial computes its steps: decided once, before the first, and kept in its record."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the forward pass; weights and optimizer are float32."""
    channels_last: bool = False
    """Whether images and weights lie in memory as (B, H, W, C)."""
    compiled: bool = False
    """Whether training steps run through `torch.compile`."""
    graphs: bool = False
    """Whether a GPU replays its steps as CUDA graphs: one launch in place of hundreds."""
    halved: bool = False
    """Whether each device batch is taken in two halves, whose gradients are added up: memory had
    run out. The global batch is the same."""

    @property
    def parts(self) -> int:
        """In how many parts a device batch is taken."""
        return 2 if self.halved else 1

    def __str__(self) -> str:
        order = "channels last" if self.channels_last else "channels first"
        compiled, graphs = ", compiled" * self.compiled, ", CUDA graphs" * self.graphs
        halved = ", each batch in two halves for want of memory" * self.halved
        return f"{self.precision}, {order}{compiled}{graphs}{halved}"


class Hardware(Part):
    """What a trial's sums were added up by: with another, the last digits differ, then all."""

    device: str
    """A GPU's name; of a CPU, the instructions that torch uses, as in `cpu AVX512`."""
    threads: int = Field(ge=1)
    """Torch's, of each rank."""
    ranks: int = Field(1, ge=1)

    def __str__(self) -> str:
        ranks, threads = "s" * (self.ranks > 1), "s" * (self.threads > 1)
        return f"{self.ranks} rank{ranks} of {self.threads} thread{threads}, {self.device}"


class InputSpec(Part):
    """What a backbone expects of its input: side in pixels, mean and standard deviation of RGB.

    Pixels are in [0, 1] before `(x - mean) / std`.
    """

    size: int = Field(ge=16)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
