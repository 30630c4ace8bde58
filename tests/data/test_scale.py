"""Crop, resize and scale: sets of images that compare, and in words what was done to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lungan.data.decode import StoredImage
from lungan.data.scale import (
    FittedImage,
    Scale,
    Wanted,
    fit_image,
    quiet,
    read_image,
    scale_images,
)

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (40, 60), dtype=np.uint8)
RGB = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def stored(values: np.ndarray, **changes: Any) -> StoredImage:
    settings: dict[str, Any] = {
        **{"values": values, "black": 0, "white": 255, "is_display": True},
        **{"kind": "8 bit", "mode": "grey 8 bit"},
    }
    return StoredImage(**{**settings, **changes})


def units(values: np.ndarray, **changes: Any) -> StoredImage:
    """Values in units of their own, of which an image alone cannot say what is bright."""
    settings: dict[str, Any] = {"is_display": False, "black": -1024, "white": 3071}
    return stored(values, **{**settings, "kind": "DICOM CT, HU", **changes})


def fit(values: np.ndarray, size: int, channels: int | None = None) -> np.ndarray:
    return fit_image(stored(values), size, channels).pixels


def scaled(images: list[StoredImage], scale: Scale = "auto") -> np.ndarray:
    fitted = [fit_image(image, None, None, scale) for image in images]
    return scale_images(fitted, scale)[0][:, 0]


def test_fit_crops_the_centre() -> None:
    image = np.zeros((30, 50), np.uint8)
    image[:, 10:40] = 200
    assert (fit(image, 30, 1) == 200).all()
    assert (fit(image.T, 30, 1) == 200).all()
    assert fit(image, 30, 1).shape == (1, 30, 30)


def test_fit_averages_areas_when_shrinking() -> None:
    image = GREY[:40, :40]
    means = image.reshape(10, 4, 10, 4).mean(axis=(1, 3))
    assert np.abs(fit(image, 10, 1)[0] - means).max() <= 0.5
    deep = stored(image.astype(np.uint16) * 257, white=65535)
    assert np.abs(fit_image(deep, 10, 1).pixels[0] - means).max() <= 0.5 + 1e-3


def test_fit_adds_no_value_when_enlarging() -> None:
    image = np.full((8, 8), 50, np.uint8)
    image[:, 4:] = 180
    large = fit(image, 33, 1)
    assert large.shape == (1, 33, 33)
    assert (large.min(), large.max()) == (50, 180)
    assert (np.diff(large[0].astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_fit_channels(dtype: type) -> None:
    factor = 257 if dtype is np.uint16 else 1

    def fitted(image: np.ndarray, channels: int) -> np.ndarray:
        image = stored(image[:40, :40].astype(dtype) * factor, white=255 * factor)
        return fit_image(image, 40, channels).pixels

    assert np.array_equal(fitted(GREY, 3), np.stack([GREY[:40, :40]] * 3))
    assert np.array_equal(fitted(RGB, 3), RGB[:40, :40].transpose(2, 0, 1))
    luminance = RGB[:40, :40] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(fitted(RGB, 1)[0] - luminance).max() <= 0.51


def test_ends_of_the_16_bit_scale() -> None:
    ends = stored(np.array([[0, 65535], [32768, 257]], np.uint16), white=65535)
    assert fit_image(ends, 2, 1).pixels[0].tolist() == [[0, 255], [128, 1]]


def test_fit_never_shares_memory_with_what_it_was_given() -> None:
    image = GREY[:40, :40].copy()
    fitted = fit(image, 40, 1)
    image[:] = 0
    assert fitted.any()


def test_one_range_for_a_set_keeps_images_comparable() -> None:
    low, high = np.full((8, 8), -1000.0), np.full((8, 8), 1000.0)
    middle = np.zeros((8, 8))
    images = scaled([units(values) for values in (low, middle, high)])
    assert [int(image[0, 0]) for image in images] == [0, 128, 255]


def test_each_kind_of_values_has_a_range_of_its_own() -> None:
    ct = [units(np.full((8, 8), value)) for value in (-1000.0, 1000.0)]
    floats = [units(np.full((8, 8), value), kind="float") for value in (0.0, 1.0)]
    assert scaled([*ct, *floats])[:, 0, 0].tolist() == [0, 255, 0, 255]


def test_images_that_say_what_is_bright_keep_it_beside_others() -> None:
    images = scaled([stored(GREY[:40, :40]), units(np.full((40, 40), 5.0))])
    assert np.array_equal(images[0], GREY[:40, :40])


def test_small_values_can_be_bright() -> None:
    ramp = np.linspace(0, 100, 64).reshape(8, 8)
    negative = units(ramp, black=100, white=0)
    assert np.array_equal(scaled([negative])[0], np.rint(255 - ramp * 2.55))
    for scale in ("range", "percentile", [0, 100]):
        assert scaled([negative], scale)[0, 0, 0] == 255


@pytest.mark.parametrize(
    ("scale", "black", "white"),
    [
        ("dtype", 0, 65535),
        ("auto", 0, 65535),
        ("range", 100, 4000),
        ([0, 1000], 0, 1000),
        ([-500, 4000], -500, 4000),
    ],
)
def test_scales(scale: Scale, black: float, white: float) -> None:
    values = np.linspace(100, 4000, 64).reshape(8, 8).astype(np.uint16)
    expected = np.clip((values.astype(float) - black) / (white - black), 0, 1) * 255
    image = stored(values, white=65535, kind="16 bit")
    assert np.abs(scaled([image], scale)[0] - expected).max() <= 0.51


def test_percentile_leaves_out_a_half_percent_at_each_end() -> None:
    values = rng.permutation(np.arange(10_000.0)).reshape(100, 100)
    values[0, 0] = 1e9
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    assert np.abs(scaled([units(values)], "percentile")[0] - expected).max() <= 0.51


def test_a_constant_set_is_black_and_said() -> None:
    images, facts = scale_images([fit_image(units(np.full((8, 8), 7.0)), None, None)])
    assert not images.any()
    assert "only the shades 0 to 0 of 0 to 255 occur" in facts.warnings[0]


def test_notes_say_the_range() -> None:
    images = [units(np.full((8, 8), value)) for value in (-1000.0, 500.0)]
    fitted = [fit_image(image, None, None) for image in [*images, stored(GREY)]]
    _, facts = scale_images([image for image in fitted if image.width == 8])
    assert facts.scaling == [
        "2 images (DICOM CT, HU): values from -1000 (black) to 500 (white), the range of them all",
    ]
    assert not facts.warnings
    assert scale_images([fitted[2]])[1].scaling == []
    chosen = [fit_image(images[0], None, None, [-1000, 400])]
    assert scale_images(chosen, [-1000, 400])[1].scaling == [
        "1 image (DICOM CT, HU): black and white are -1000 and 400",
    ]
    by_type = [fit_image(images[0], None, None, "dtype")]
    assert "are the ends of their type" in scale_images(by_type, "dtype")[1].scaling[0]


@pytest.mark.parametrize(("top", "is_said"), [(24, True), (63, True), (64, False), (255, False)])
def test_a_set_that_spans_little_is_warned_of_whatever_its_format(top: int, is_said: bool) -> None:
    ramp = np.linspace(0, top, 64).reshape(8, 8)
    eight = fit_image(stored(np.rint(ramp).astype(np.uint8)), None, None)
    deep = stored(np.rint(ramp * 257).astype(np.uint16), white=65535, kind="16 bit")
    windowed = stored((ramp / 255).astype(np.float32), white=1, kind="DICOM CR, window")
    for image in (eight, fit_image(deep, None, None), fit_image(windowed, None, None)):
        warnings = scale_images([image])[1].warnings
        assert bool(warnings) == is_said
        if is_said:
            said = f"only the shades 0 to {top} of 0 to 255 occur in 1 image ({image.kind})"
            assert said in warnings[0]
            assert "data.scale=range" in warnings[0]


def test_grey_stored_as_colour_is_called_grey() -> None:
    grey = np.repeat(GREY[..., None], 3, axis=2)
    tinted = grey.copy()
    tinted[0, 0, 1] ^= 1
    modes = [
        fit_image(stored(values, mode="colour 8 bit"), None, 1).mode for values in (grey, tinted)
    ]
    assert modes == ["grey 8 bit stored as colour", "colour 8 bit"]


def test_windows_that_only_some_have_are_said() -> None:
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    windowed = stored(ramp, white=1, mode="DICOM CT, HU", kind="DICOM CT, window")
    fitted = [
        fit_image(image, None, None)
        for image in (windowed, units(ramp * 900, mode="DICOM CT, HU"), stored(GREY[:8, :8]))
    ]
    said = "1 of 2 images (DICOM CT, HU) have a window of their own and the others not"
    assert scale_images(fitted)[1].warnings[0].startswith(said)
    for alike in (fitted[:1], fitted[1:2]):
        assert not scale_images(alike)[1].warnings


def test_kinds_of_values_that_do_not_compare_are_said() -> None:
    ramp = np.linspace(0, 255, 64).reshape(8, 8)
    images = [units(ramp, kind="float"), stored(ramp.astype(np.uint8))]
    for scale, is_said in (("auto", True), ("range", True), ("dtype", False), ([0, 255], False)):
        fitted = [fit_image(image, None, None, scale) for image in images]
        warnings = scale_images(fitted, scale)[1].warnings
        assert any("float (1), 8 bit (1)" in warning for warning in warnings) == is_said


def test_the_warning_s_way_out_works(tmp_path: Path) -> None:
    """12 bits in 16: dark by the type, right by the range."""
    values = np.linspace(0, 4095, 256).reshape(16, 16).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values)
    for scale, top in (("auto", 16), ("range", 255), ([0, 4095], 255)):
        image = read_image(tmp_path / "a.tif", Wanted(16, 1, scale))
        assert isinstance(image, FittedImage)
        assert scale_images([image], scale)[0].max() == top


def test_facts_of_a_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.int16), photometric="rgb")
    image = read_image(tmp_path / "a.tif", Wanted(16, 3))
    assert isinstance(image, FittedImage)
    assert (image.width, image.height, image.mode) == (60, 40, "colour signed 16 bit")
    assert image.pixels.shape == (3, 16, 16)
    assert image.pixels.dtype == np.float32
    assert not (image.notes or image.is_negative)
    own = read_image(tmp_path / "a.tif", Wanted())
    assert isinstance(own, FittedImage)
    assert own.pixels.shape == (3, 40, 40)


def test_a_file_that_cannot_be_used_gives_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    with quiet():
        reason = read_image(tmp_path / "a.png", Wanted(16, 1))
    assert reason == "not a PNG, JPEG, BMP, TIFF, DICOM, GIF or WebP image"
