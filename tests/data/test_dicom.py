"""DICOM as a viewer shows it: windows, tables, inversion, bits; files that are refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the dicom extra is not installed")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless  # noqa: E402

from lungan.data.decode import BadImageError, decode  # noqa: E402

RAMP = np.arange(0, 4096, 4, dtype=np.uint16).reshape(32, 32)


def dicom(pixels: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A file of these pixels at 12 bits, or as ``elements`` say."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = 12 if dataset.BitsAllocated == 16 else 8
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def shades(data: bytes) -> np.ndarray:
    """From 0, black, to 1, on the scale of the file's window or type."""
    image = decode(data)
    return (image.values.astype(float) - image.black) / (image.white - image.black)


def test_without_a_window_the_stored_bits_are_the_scale() -> None:
    assert np.abs(shades(dicom(RAMP)) - RAMP / 4095).max() < 1e-4
    eight = (RAMP // 16).astype(np.uint8)
    assert np.abs(shades(dicom(eight)) - eight / 255).max() < 1e-4
    assert np.abs(shades(dicom(RAMP, BitsStored=16)) - RAMP / 65535).max() < 1e-4


def test_monochrome1_is_inverted() -> None:
    inverted = shades(dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert np.abs(inverted - (1 - RAMP / 4095)).max() < 1e-4
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    inverted = shades(dicom(RAMP, PhotometricInterpretation="MONOCHROME1", **window))
    assert np.abs(inverted - (1 - shades(dicom(RAMP, **window)))).max() < 1e-4


def test_signed_values() -> None:
    signed = RAMP.astype(np.int16) - 2048
    assert np.abs(shades(dicom(signed)) - (signed + 2048.0) / 4095).max() < 1e-4


def test_linear_window_is_pydicoms() -> None:
    data = dicom(RAMP, WindowCenter=1000, WindowWidth=500)
    dataset = pydicom.dcmread(io.BytesIO(data))
    expected = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset) / 4095
    assert np.abs(shades(data) - expected).max() < 1e-4
    assert (shades(data).min(), shades(data).max()) == (0, 1)


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_functions_are_pydicoms(function: str) -> None:
    data = dicom(RAMP, WindowCenter=1000, WindowWidth=500, VOILUTFunction=function)
    dataset = pydicom.dcmread(io.BytesIO(data))
    expected = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset) / 4095
    assert np.abs(shades(data) - expected).max() < 1e-4


def test_the_first_of_several_windows_counts() -> None:
    several = dicom(RAMP, WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    assert np.array_equal(shades(several), shades(dicom(RAMP, WindowCenter=1000, WindowWidth=500)))


def test_a_window_of_one_is_a_threshold() -> None:
    threshold = shades(dicom(RAMP, WindowCenter=1000, WindowWidth=1))
    assert np.array_equal(threshold, (RAMP > 999.5).astype(float))


def test_the_window_is_in_rescaled_units() -> None:
    rescaled = dicom(
        RAMP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=1000
    )
    plain = np.clip((RAMP * 2.0 - 1000 - 999.5) / 999 + 0.5, 0, 1)
    assert np.abs(shades(rescaled) - plain).max() < 1e-4


def test_rescaling_alone_moves_the_scale_with_it() -> None:
    up = dicom(RAMP, RescaleSlope=2, RescaleIntercept=-1000)
    assert np.abs(shades(up) - RAMP / 4095).max() < 1e-4
    down = dicom(RAMP, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.abs(shades(down) - (1 - RAMP / 4095)).max() < 1e-4


def table(entries: np.ndarray, bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), 0, bits])
    item.add_new("LUTData", "OW", entries.astype(np.uint16).tobytes())
    return Sequence([item])


def test_voi_table_goes_before_the_window() -> None:
    squares = (np.arange(4096) ** 2 // 4096).astype(np.uint16)
    data = dicom(RAMP, VOILUTSequence=table(squares, 12), WindowCenter=5, WindowWidth=9)
    assert np.abs(shades(data) - squares[RAMP] / squares.max()).max() < 1e-4


def test_modality_table() -> None:
    squares = (np.arange(4096) ** 2 // 65536).astype(np.uint16)
    sequence = table(squares, 8)
    sequence[0].ModalityLUTType = "US"
    data = dicom(RAMP, ModalityLUTSequence=sequence)
    assert np.abs(shades(data) - squares[RAMP] / squares.max()).max() < 1e-4


def test_colour() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    elements = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    decoded = decode(dicom(rgb, PhotometricInterpretation="RGB", **elements)).values
    assert np.array_equal(decoded, rgb)


def test_palette() -> None:
    index = (RAMP // 16).astype(np.uint8)
    reds = np.arange(256, dtype=np.uint16) * 257
    elements: dict[str, Any] = {}
    for name, values in (("Red", reds), ("Green", reds[::-1]), ("Blue", reds * 0)):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    decoded = decode(dicom(index, PhotometricInterpretation="PALETTE COLOR", **elements)).values
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded[..., 0], index)
    assert np.array_equal(decoded[..., 1], 255 - index)
    assert not decoded[..., 2].any()


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (
            {"NumberOfFrames": 3},
            "holds 3 frames, .*; data.frame=0 takes the first",
        ),
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels, more than the limit of 67"),
        ({"Rows": 64}, "DICOM cannot be decoded: .*pixel data"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "DICOM whose window is 0 wide"),
        (
            {"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"},
            "DICOM with VOI LUT function CUBIC",
        ),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "DICOM whose rescale slope is 0"),
        ({"PhotometricInterpretation": "TRANSPARENT"}, "TRANSPARENT"),
    ],
)
def test_refused(elements: dict[str, Any], message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        decode(dicom(RAMP, **elements))


def test_without_pixels() -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(RAMP)))
    del dataset.PixelData
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset)
    with pytest.raises(BadImageError, match="DICOM without pixel data"):
        decode(file.getvalue())


@pytest.mark.filterwarnings("ignore")
def test_every_cut_is_noticed() -> None:
    data = dicom(RAMP, WindowCenter=1000, WindowWidth=500)
    for length in range(132, len(data), 61):
        with pytest.raises(BadImageError, match="DICOM"):
            decode(data[:length])


@pytest.mark.filterwarnings("ignore")
def test_random_damage_never_crashes() -> None:
    data = dicom(RAMP, WindowCenter=1000, WindowWidth=500, RescaleSlope=2, RescaleIntercept=1)
    rng = np.random.default_rng(0)
    header = len(data) - RAMP.nbytes
    for _ in range(300):
        damaged = bytearray(data)
        damaged[int(rng.integers(132, header))] = int(rng.integers(256))
        try:
            assert decode(bytes(damaged)).values.dtype.kind in "uf"
        except BadImageError:
            continue


def test_a_compression_without_its_decoder_is_said_on_one_line() -> None:
    data = dicom(
        RAMP, syntax=JPEG2000Lossless, PixelData=encapsulate([b"\xff\x4f\xff\x51 no image "])
    )
    with pytest.raises(BadImageError, match="DICOM cannot be decoded: ") as caught:
        decode(data)
    assert "\n" not in str(caught.value)
