"""What is drawn, against torchvision; how it is applied, OpenCV against torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms.functional import gaussian_blur

from carray.config import AugmentConfig
from carray.data.pixels.augment_ranges import (
    DIALS,
    AugmentRanges,
    ranges_for,
    ranges_of,
    sees_whole_image,
)
from carray.data.pixels.augmentation import (
    AugmentParams,
    affine_of,
    concat,
    crops_of,
    identity_params,
    sample_crops,
    sample_params,
    tilts_of,
)
from carray.data.pixels.augmentation_backends import apply_opencv, apply_torch

SIDE, OUT = 80, 64


def numbers(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def smooth_images(count: int = 8) -> npt.NDArray[np.uint8]:
    """Pictures without hard edges: interpolation rounds otherwise in OpenCV and torch."""
    noise = numbers(1).integers(0, 256, (count, 6, 6, 3), np.uint8)
    return np.stack([cv2.resize(i, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for i in noise])


def both_ways(params: AugmentParams) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    images = smooth_images(len(params))
    on_cpu = apply_opencv(images, params, OUT).astype(float)
    on_device = apply_torch(torch.from_numpy(images), params, OUT)
    return on_cpu, on_device.permute(0, 2, 3, 1).double().numpy()


def test_strength_zero_is_the_whole_image_flipped_at_most() -> None:
    images = smooth_images()
    drawn = apply_opencv(images, sample_params(ranges_for(0.0), True, 8, SIDE, OUT, numbers()), OUT)
    whole = apply_opencv(images, identity_params(8, SIDE, OUT), OUT)
    for image, wanted in zip(drawn, whole, strict=True):
        same, flipped = np.array_equal(image, wanted), np.abs(image[:, ::-1].astype(int) - wanted)
        assert same or flipped.max() <= 2


def test_evaluation_is_a_plain_resize() -> None:
    images = smooth_images()
    ours = apply_opencv(images, identity_params(8, SIDE, OUT), OUT).astype(float)
    theirs = np.stack([cv2.resize(i, (OUT, OUT), interpolation=cv2.INTER_LINEAR) for i in images])
    assert np.abs(ours - theirs).max() <= 2


def test_every_range_of_the_dial_widens_with_strength() -> None:
    rows = [ranges_for(strength) for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert rows[0].crop_area_min == 1
    assert rows[-1].crop_area_min == pytest.approx(0.08)
    for name in ("colour", "hue", "geometric_share", "tone_share", "erase_share", "gamma"):
        values = [getattr(row, name) for row in rows]
        assert values == sorted(values)
        assert values[0] < values[-1]


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        ranges_for(strength)


def only(row: AugmentRanges, **changes: float) -> AugmentRanges:
    """Leave of a dial what torchvision's crops, flips and jitter do as well."""
    return replace(row, geometric_share=0.0, tone_share=0.0, erase_share=0.0, **changes)


def test_crops_are_distributed_as_torchvisions() -> None:
    side = 1000
    params = sample_params(
        only(ranges_for(1.0), crop_area_min=0.2), True, 4000, side, OUT, numbers()
    )
    boxes = crops_of(params.affine, side, OUT) / side
    sides = boxes[:, 2:] - boxes[:, :2]
    torch.manual_seed(0)
    image = torch.zeros(3, side, side)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    )
    areas = theirs[:, 2] * theirs[:, 3] / 1e6, sides[:, 0] * sides[:, 1]
    aspects = np.log(theirs[:, 3] / theirs[:, 2]), np.log(sides[:, 0] / sides[:, 1])
    left, top = (theirs[:, 1] / 1e3, boxes[:, 0]), (theirs[:, 0] / 1e3, boxes[:, 1])
    for torchvisions, ours in (areas, aspects, left, top):
        wanted = np.quantile(torchvisions, [0.1, 0.25, 0.5, 0.75, 0.9])
        assert np.quantile(ours, [0.1, 0.25, 0.5, 0.75, 0.9]) == pytest.approx(wanted, abs=0.03)


def photograph() -> npt.NDArray[np.uint8]:
    """Return (20, 20, 3): soft colours around the mid-grey that contrast turns around."""
    soft = numbers(7).normal(115, 22, (5, 5, 3)).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(soft, (20, 20), interpolation=cv2.INTER_LINEAR))


def colour_statistics(image: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return mean luma, its deviation, and the mean distance between channels."""
    grey = image @ np.array([0.299, 0.587, 0.114])
    return float(grey.mean()), float(grey.std()), float(np.ptp(image, axis=2).mean())


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_colours_are_distributed_as_color_jitters(strength: float) -> None:
    row, image = only(ranges_for(strength), crop_area_min=1.0, hue=0.0), photograph()
    params = sample_params(row, False, 4000, 20, 20, numbers())
    ours = [colour_statistics(one) for one in apply_opencv([image] * 4000, params, 20)]
    torch.manual_seed(0)
    jitter = ColorJitter(row.colour, row.colour, row.colour)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    theirs = [colour_statistics(jitter(tensor).permute(1, 2, 0).numpy()) for _ in range(4000)]
    points = [0.05, 0.25, 0.5, 0.75, 0.95]
    for mine, torchvisions in zip(np.array(ours).T, np.array(theirs).T, strict=True):
        wanted = np.quantile(torchvisions, points)
        assert np.quantile(mine, points) == pytest.approx(wanted, rel=0.05)


def test_hues_turn_as_far_as_color_jitters() -> None:
    row = only(ranges_for(1.0), crop_area_min=1.0, colour=1e-6)
    colours = [(150, 90, 80), (140, 140, 90), (90, 150, 100), (90, 140, 150), (90, 80, 150)]
    image = np.array(colours, np.uint8)[:, None].repeat(5, 1)  # (5, 5, 3)
    params = sample_params(row, False, 1500, 5, 5, numbers())
    params = replace(params, affine=identity_params(1500, 5, 5).affine)
    torch.manual_seed(0)
    jitter, tensor = ColorJitter(hue=row.hue), torch.from_numpy(image).permute(2, 0, 1)
    theirs = np.stack([jitter(tensor)[:, :, 0].T.numpy() for _ in range(1500)])  # (1500, 5, 3)
    ours = apply_opencv([image] * 1500, params, 5)[:, :, 0]
    turns = [hues(turned) - hues(image[:, 0]) for turned in (ours, theirs)]
    turns = [(turn + 180) % 360 - 180 for turn in turns]
    widths = [np.ptp(np.quantile(turn, [0.05, 0.95], axis=0), axis=0).mean() for turn in turns]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)  # YIQ's circle isn't HSV's
    assert np.median(turns[0]) == pytest.approx(np.median(turns[1]), abs=3)


def hues(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the hues of (..., 3) colours in degrees, from -180 to 180."""
    red, green, blue = np.moveaxis(colours.astype(float), -1, 0)
    return np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))


def test_whole_pixels_inside_the_image_are_cut_out_and_everything_else_is_warped() -> None:
    crops = crops_of(
        sample_params(only(ranges_for(1.0)), True, 400, SIDE, OUT, numbers()).affine, SIDE, OUT
    )
    assert (crops[:, 2] > crops[:, 0]).all()
    params = sample_params(ranges_for(1.0), True, 400, SIDE, OUT, numbers())
    crops = crops_of(params.affine, SIDE, OUT)
    cut, is_turned = crops[:, 2] > 0, (params.affine[:, [0, 1], [1, 0]] != 0).any(1)
    assert not (cut & is_turned).any()
    assert (~cut & ~is_turned).any()  # shifted past the edge
    assert crops.min() >= 0
    assert crops.max() <= SIDE


def test_a_cut_and_a_warp_of_the_same_map_agree_inside() -> None:
    images = smooth_images(64)
    params = sample_params(only(ranges_for(1.0), colour=0.0), True, 64, SIDE, OUT, numbers())
    cut = apply_opencv(images, params, OUT).astype(int)
    for image, affine, ours in zip(images, params.affine, cut, strict=True):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(image, affine, (OUT, OUT), flags=flags).astype(int)
        assert np.abs(ours - warped)[4:-4, 4:-4].max() <= 1


def test_crops_stay_inside_the_image() -> None:
    boxes = sample_crops(ranges_for(1.0), 2000, numbers())
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-9
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_half_of_the_images_are_flipped_and_none_without_flip() -> None:
    def share(flip: bool) -> float:
        params = sample_params(ranges_for(0.0), flip, 4000, SIDE, OUT, numbers())
        return float((params.affine[:, 0, 0] < 0).mean())

    assert share(True) == pytest.approx(0.5, abs=0.03)
    assert share(False) == 0


def test_colour_moves_by_what_the_dial_says() -> None:
    strength = 0.5
    params = sample_params(ranges_for(strength), True, 4000, SIDE, OUT, numbers())
    grey = params.colour[:, :, :3].sum(2) * 115.0 + params.colour[:, :, 3]
    # contrast turns around brightened mid-grey, saturation and hue leave grey alone
    widest = 0.4 * strength
    assert grey.min() == pytest.approx(115 * (1 - widest), abs=0.6)
    assert grey.max() == pytest.approx(115 * (1 + widest), abs=0.6)
    assert grey.mean() == pytest.approx(115, abs=1.5)
    assert grey.std() == pytest.approx(115 * widest / np.sqrt(3), rel=0.06)


def test_a_hue_turn_leaves_luma_alone() -> None:
    params = sample_params(ranges_for(1.0), True, 200, SIDE, OUT, numbers())
    red = np.array([200.0, 40.0, 40.0])
    luma = np.array([0.299, 0.587, 0.114])
    turned = params.colour[:, :, :3] @ red + params.colour[:, :, 3]
    scale = params.colour[:, :, :3].sum(2).mean(1)  # brightness x contrast
    wanted = scale * (luma @ red) + params.colour[:, 0, 3]
    assert turned @ luma == pytest.approx(wanted, rel=0.02)


def test_erased_boxes_are_as_many_and_as_large_as_the_dial_says() -> None:
    params = sample_params(ranges_for(1.0), True, 4000, SIDE, OUT, numbers())
    x1, y1, x2, y2 = params.erase.T
    area = (x2 - x1) * (y2 - y1) / OUT**2
    assert (area > 0).mean() == pytest.approx(ranges_for(1.0).erase_share, abs=0.03)
    assert area.max() <= ranges_for(1.0).erase_area_max + 0.02
    assert params.erase.min() >= 0
    assert params.erase.max() <= OUT


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_opencv_and_torch_agree(strength: float) -> None:
    params = sample_params(ranges_for(strength), True, 8, SIDE, OUT, numbers(4))
    # a solarised edge jumps by 255 where the two round otherwise: compared apart
    cpu, device = both_ways(replace(params, has_tone=np.zeros(8, bool)))
    assert np.abs(cpu - device).mean() < 0.6
    assert np.quantile(np.abs(cpu - device), 0.99) < 2.5


def test_opencv_and_torch_agree_on_tone() -> None:
    params = sample_params(ranges_for(1.0), True, 8, SIDE, OUT, numbers(4))
    gamma = np.rint(255 * (np.arange(256) / 255) ** 1.7).astype(np.uint8)
    params = replace(params, has_tone=np.ones(8, bool), tone=np.tile(gamma, (8, 1)))
    cpu, device = both_ways(params)
    assert np.abs(cpu - device).mean() < 1.0
    assert np.abs(cpu - both_ways(replace(params, has_tone=np.zeros(8, bool)))[0]).mean() > 5


def test_opencv_and_torch_blur_as_torchvision_does() -> None:
    params = sample_params(ranges_for(0.0), False, 8, SIDE, OUT, numbers(4), blur_share=1.0)
    cpu, device = both_ways(params)
    assert np.abs(cpu - device).mean() < 0.6
    sharp = both_ways(replace(params, blur=np.zeros(8)))[0]
    for image, done, sigma in zip(sharp, cpu, params.blur, strict=True):
        wanted = gaussian_blur(torch.from_numpy(image).permute(2, 0, 1), [9, 9], [sigma, sigma])
        assert np.abs(wanted.permute(1, 2, 0).numpy() - done).max() <= 1.5
    assert np.abs(cpu - sharp).max() > 2


def test_as_many_images_are_blurred_as_wished_and_no_other_draw_moves() -> None:
    off = sample_params(ranges_for(0.5), True, 4000, SIDE, OUT, numbers())
    on = sample_params(ranges_for(0.5), True, 4000, SIDE, OUT, numbers(), blur_share=0.3)
    assert not off.blur.any()
    assert (on.blur > 0).mean() == pytest.approx(0.3, abs=0.03)
    assert on.blur[on.blur > 0].min() >= 0.1
    assert on.blur.max() <= 2.0
    assert np.array_equal(off.affine, on.affine)
    assert np.array_equal(off.fill, on.fill)


def test_a_shifted_crop_reads_the_pixels_it_names() -> None:
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    image[0, 20:60, 40:80] = 200
    box = np.array([[0.5, 0.25, 1.0, 0.75]])
    identity = np.eye(2)[None]
    params = identity_params(1, SIDE, OUT)
    affine = affine_of(box, np.zeros(1, bool), identity, SIDE, OUT)
    out = apply_opencv(image, replace(params, affine=affine), OUT)
    assert (out == 200).mean() > 0.95
    assert (out[0, 2:-2, 2:-2] == 200).all()


def test_the_same_numbers_draw_the_same_parameters() -> None:
    first, second = (
        sample_params(ranges_for(0.7), True, 5, SIDE, OUT, numbers(9)) for _ in range(2)
    )
    for name in ("affine", "colour", "tone", "erase", "fill", "blur"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_a_dial_of_its_own_turns_its_own_ranges_alone() -> None:
    calm, wild = ranges_for(0.0), ranges_for(1.0)
    assert ranges_of(AugmentConfig(strength=0.3)) == ranges_for(0.3)
    for dial, names in DIALS.items():
        ranges = ranges_of(AugmentConfig.model_validate({"strength": 0.0, dial: 1.0}))
        changed = {name for name, value in vars(ranges).items() if value != vars(calm)[name]}
        assert changed == set(names)
        assert all(vars(ranges)[name] == vars(wild)[name] for name in names)
    assert ranges_of(AugmentConfig(crop_min_area=0.5)).crop_area_min == 0.5
    turned = [name for names in DIALS.values() for name in names]
    off = {"erase_boxes", "perspective_share", "tilt", "blur_kind"}  # strength leaves these alone
    assert all(vars(calm)[name] == vars(wild)[name] for name in off)
    assert {*turned, "crop_area_min", "crop_aspect_max", *off} == set(vars(calm))


@pytest.mark.parametrize(
    "own", [{"perspective": 1.0}, {"blur_kind": "motion"}, {"blur_kind": "median"}]
)
def test_opencv_and_torch_tilt_and_blur_alike(own: dict[str, Any]) -> None:
    row = ranges_of(AugmentConfig.model_validate({"strength": 0.0, **own}))
    params = sample_params(row, False, 8, SIDE, OUT, numbers(4), 1.0 if "blur_kind" in own else 0)
    plain = identity_params(8, SIDE, OUT)
    cpu, device = both_ways(params)
    assert np.abs(cpu - device).mean() < 0.6
    assert np.quantile(np.abs(cpu - device), 0.99) < 2.5
    assert np.abs(cpu - both_ways(plain)[0]).max() >= 1


def test_a_tilt_enlarges_the_nearer_side_about_the_middle() -> None:
    x = np.array([[0.0, 31.5, 63.0], [31.5, 31.5, 31.5], [1.0, 1.0, 1.0]])
    left, middle, right = (tilts_of(np.array([[0.2, 0.0]]), OUT)[0] @ x).T
    seen = [own[0] / own[2] for own in (left, middle, right)]
    assert seen[1] == pytest.approx(31.5, abs=1e-3)
    assert seen[2] - seen[1] < 31.5 < seen[1] - seen[0]  # fewer pixels fill the right half


def test_several_boxes_are_erased_where_one_is_and_what_is_off_moves_no_draw() -> None:
    augment = AugmentConfig(strength=1.0, erase_boxes=3, perspective=1.0, blur=0.5, blur_kind="any")
    on = sample_params(ranges_of(augment), True, 400, SIDE, OUT, numbers(), 0.5)
    off = sample_params(ranges_for(1.0), True, 400, SIDE, OUT, numbers(), 0.5)
    for name in ("affine", "colour", "tone", "erase", "fill", "blur"):
        assert np.array_equal(getattr(on, name), getattr(off, name))
    erased = on.erase[:, 2] > on.erase[:, 0]
    assert on.more_boxes.shape == (400, 2, 4)
    assert np.array_equal(erased, on.more_boxes[:, :, 2].any(1))
    assert set(on.blur_kind) == {0, 1, 2}
    cpu, device = both_ways(replace(on, has_tone=np.zeros(400, bool)))
    assert np.abs(cpu - device).mean() < 1.0
    both = concat([off, on])
    assert len(both.tilt) == 800 and not both.tilt[:400].any()


def test_whether_nothing_is_changed_is_known() -> None:
    assert sees_whole_image(AugmentConfig(strength=0, flip=False))
    assert sees_whole_image(AugmentConfig(strength=0, flip=False, jitter=0.0))
    assert not sees_whole_image(AugmentConfig(strength=0, flip=False, jitter=0.1))
    assert not sees_whole_image(AugmentConfig(strength=0))


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_crops_hold_a_box_or_lie_in_it_and_are_as_before_where_there_is_none(
    strength: float,
) -> None:
    row, kept = ranges_for(strength), np.tile([0.1, 0.3, 0.5, 0.9], (2000, 1))
    kept[::2] = np.nan
    crops, before = sample_crops(row, 2000, numbers(), kept), sample_crops(row, 2000, numbers())
    assert np.array_equal(crops[::2], before[::2])
    assert np.allclose(crops[:, 2:] - crops[:, :2], before[:, 2:] - before[:, :2])
    assert crops.min() >= 0
    assert crops.max() <= 1 + 1e-9
    crops, kept = crops[1::2], kept[1::2]
    holds = (crops[:, :2] <= kept[:, :2] + 1e-9) & (crops[:, 2:] >= kept[:, 2:] - 1e-9)
    within = (crops[:, :2] >= kept[:, :2] - 1e-9) & (crops[:, 2:] <= kept[:, 2:] + 1e-9)
    larger = crops[:, 2:] - crops[:, :2] >= kept[:, 2:] - kept[:, :2]
    assert np.where(larger, holds, within).all()
    assert 0.1 < holds.all(1).mean() <= 1
    assert np.unique(crops[:, 0]).size > 500  # and they still vary
