"""What `strength` and the dials of an `AugmentConfig` mean: ranges that augmentation draws from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from carray.config import AugmentConfig


@dataclass(frozen=True)
class AugmentRanges:
    """What one `strength` means: a row of the table in the documentation."""

    crop_area_min: float
    """Smallest crop, as a share of the image's area; the largest is all of it."""
    crop_aspect_max: float
    """Widest aspect ratio of the crop; the narrowest is its inverse."""
    colour: float
    """Brightness, contrast and saturation are scaled by 1 +- this."""
    hue: float
    """Largest turn of the hue, in circles, either way."""
    geometric_share: float
    """Share of the images with one of `GEOMETRIC`."""
    rotate_degrees: float
    shear: float
    translate: float
    """Largest shift, as a share of the crop's side."""
    tone_share: float
    """Share of the images with one of `TONE`."""
    posterize_bits: int
    """Fewest bits kept."""
    solarize_from: int
    """Lowest value from which pixels are inverted."""
    gamma: float
    """Largest exponent; the smallest is its inverse."""
    erase_share: float
    """Share of the images with one erased box (Zhong et al., "Random Erasing", AAAI 2020)."""
    erase_area_max: float
    erase_boxes: int = 1
    perspective_share: float = 0.0
    """Share of the images that are seen tilted."""
    tilt: float = 0.0
    """How much nearer one side of the crop is than the middle, at most."""
    blur_kind: str = "gaussian"
    """One of `carray.data.pixels.blur.KINDS`, or `any`."""


def ranges_for(strength: float) -> AugmentRanges:
    """Return what `strength`, in [0, 1], means; 0 is the whole image, flipped at most.

    Raises:
        ValueError: the strength is outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must be in [0, 1]")
    return AugmentRanges(
        crop_area_min=1 - 0.92 * strength,
        crop_aspect_max=(4 / 3) ** strength,
        colour=0.4 * strength,
        hue=0.1 * strength,
        geometric_share=0.8 * strength,
        rotate_degrees=30 * strength,
        shear=0.3 * strength,
        translate=0.2 * strength,
        tone_share=0.4 * strength,
        posterize_bits=8 - round(4 * strength),
        solarize_from=256 - round(128 * strength),
        gamma=2**strength,
        erase_share=0.4 * strength,
        erase_area_max=0.02 + 0.23 * strength,
    )


DIALS = {
    "jitter": ("colour", "hue"),
    "geometry": ("geometric_share", "rotate_degrees", "shear", "translate"),
    "tone": ("tone_share", "posterize_bits", "solarize_from", "gamma"),
    "erasing": ("erase_share", "erase_area_max"),
}
"""What of `AugmentRanges` each dial of its own turns."""


def ranges_of(augment: AugmentConfig) -> AugmentRanges:
    """Return what a configuration means: by its strength, and its own dials where it has some."""
    own: dict[str, Any] = {
        "erase_boxes": augment.erase_boxes,
        "perspective_share": 0.8 * augment.perspective,
        "tilt": 0.3 * augment.perspective,
        "blur_kind": augment.blur_kind,
    }
    if augment.crop_min_area is not None:
        own["crop_area_min"] = augment.crop_min_area
    for dial, names in DIALS.items():
        if (value := getattr(augment, dial)) is not None:
            ranges = ranges_for(value)
            own |= {name: getattr(ranges, name) for name in names}
    return replace(ranges_for(augment.strength), **own)


def sees_whole_image(augment: AugmentConfig) -> bool:
    """Say whether nothing is changed in training: each image is as it is evaluated."""
    plain = augment.model_copy(update={"erase_boxes": 1, "blur_kind": "gaussian"})
    others = augment.flip or augment.blur or augment.transform
    return ranges_of(plain) == ranges_for(0.0) and not others
