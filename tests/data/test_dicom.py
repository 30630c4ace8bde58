"""DICOM as a viewer shows it: windows, tables, inversion, bits; files that are refused."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the dicom extra is not installed")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from lungan.data import decode as decoding  # noqa: E402
from lungan.data.decode import BadImageError, decode  # noqa: E402
from lungan.data.scale import fit_image, quiet, scale_images  # noqa: E402
from lungan.errors import DataError  # noqa: E402

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
    if pixels.ndim == 3:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    if syntax == ExplicitVRBigEndian:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def changed(data: bytes, change: Callable[[Dataset], Any]) -> bytes:
    """The same file after ``change`` of its data set."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    change(dataset)
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset)
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


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions_are_pydicoms(function: str) -> None:
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
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "DICOM whose rescale slope is nan"),
        ({"PhotometricInterpretation": "TRANSPARENT"}, "TRANSPARENT"),
        ({"Rows": 0}, "DICOM without Rows"),
    ],
)
def test_refused(elements: dict[str, Any], message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        decode(dicom(RAMP, **elements))


@pytest.mark.parametrize(
    ("pixels", "bits", "high_bit"),
    [
        (RAMP << 4, 12, 15),  # as the standard once allowed
        (RAMP | 1, 12, 15),  # the header is wrong
        (RAMP, 12, 7),
        ((RAMP.astype(np.int16) - 2048) << 4, 12, 15),
        (RAMP.astype(np.int16) - 2047, 12, 15),
        (RAMP, 12, 20),  # beyond what a value has
    ],
)
def test_a_high_bit_elsewhere_is_where_the_values_are(
    pixels: np.ndarray, bits: int, high_bit: int
) -> None:
    data = dicom(pixels, BitsStored=bits)
    image = decode(changed(data, lambda dataset: setattr(dataset, "HighBit", high_bit)))
    expected = RAMP.astype(float) - (2048 if pixels.dtype.kind == "i" else 0)
    assert np.abs(image.values - expected).max() <= 1
    assert image.kind == f"DICOM image, {'signed ' if pixels.dtype.kind == 'i' else ''}12 bit"


def test_a_high_bit_that_fits_no_values_is_refused_with_the_way_out() -> None:
    data = dicom(RAMP * 16 + 1, BitsStored=12)
    with pytest.raises(BadImageError, match=r"whose high bit is 15, .* write HighBit=11 into"):
        decode(changed(data, lambda dataset: setattr(dataset, "HighBit", 15)))


def test_a_segmentation_is_a_mask() -> None:
    with pytest.raises(BadImageError, match="DICOM segmentation, a mask and no image"):
        decode(dicom(RAMP, Modality="SEG"))


@pytest.mark.parametrize(
    ("photometric", "dtype"), [("ARGB", "u1"), ("MONOCHROME2", "u1"), ("RGB", "i1")]
)
def test_colours_that_are_refused(photometric: str, dtype: str) -> None:
    with pytest.raises(BadImageError, match=f"DICOM (with .* {photometric}|of colour in int8)"):
        decode(dicom(np.zeros((8, 8, 3), dtype), PhotometricInterpretation=photometric))


@pytest.mark.parametrize(
    ("name", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")]
)
def test_floating_pixels(name: str, dtype: str) -> None:
    def change(dataset: Dataset) -> None:
        for key in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(dataset, key)
        dataset.BitsAllocated = 8 * np.dtype(dtype).itemsize
        setattr(dataset, name, (RAMP / 7).astype(dtype).tobytes())

    image = decode(changed(dicom(RAMP), change))
    assert image.kind == "DICOM image, float"
    assert np.abs(image.values - RAMP / 7).max() < 1e-4


def test_without_pixels() -> None:
    with pytest.raises(BadImageError, match="DICOM without pixel data"):
        decode(changed(dicom(RAMP), lambda dataset: delattr(dataset, "PixelData")))


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


# Every combination, against pydicom's own reading.

SIZE = 24
SHADES = np.add.outer(np.arange(SIZE), np.arange(SIZE)) / (2 * SIZE - 2)


def show(data: bytes) -> np.ndarray:
    """What lungan makes of the file alone, from 0 to 1."""
    with quiet():
        images = scale_images([fit_image(decode(data), None, None)])[0][0]
    return (images[0] if len(images) == 1 else images.transpose(1, 2, 0)) / 255


@pytest.mark.parametrize("bits", [1, 4, 6, 8, 9, 10, 12, 14, 16, 24, 32])
@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_every_layout_shows_the_scene(
    bits: int, is_signed: bool, photometric: str, syntax: str
) -> None:
    low = -(2 ** (bits - 1)) if is_signed else 0
    values = np.rint(SHADES * (2**bits - 1) + low)
    if bits == 1:
        values = (SHADES > 0.5) + low
    size = 1 if bits <= 8 else 2 if bits <= 16 else 4
    stored = values.astype(f"{'i' if is_signed else 'u'}{size}")
    for rescale in (None, (1, 0), (2.5, -1000), (-1, 50)):
        elements: dict[str, Any] = {"BitsStored": bits, "PhotometricInterpretation": photometric}
        if rescale:
            elements |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
        units = values * (rescale[0] if rescale else 1) + (rescale[1] if rescale else 0)
        expected = (units - units.min()) / (units.max() - units.min())
        windowed = units > (units.min() + units.max()) / 2
        if photometric == "MONOCHROME1":
            expected, windowed = 1 - expected, ~windowed
        assert np.abs(show(dicom(stored, syntax=syntax, **elements)) - expected).max() < 0.004
        window = {"WindowCenter": f"{(units.min() + units.max()) / 2 + 0.5:.15g}", "WindowWidth": 1}
        shown = show(dicom(stored, syntax=syntax, **elements, **window))
        assert np.array_equal(shown, windowed)


@pytest.mark.parametrize(
    ("bits", "photometric"), [(8, "RGB"), (12, "RGB"), (16, "RGB"), (8, "YBR_FULL")]
)
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_layout_of_colour(bits: int, planar: int, syntax: str, photometric: str) -> None:
    colour = np.dstack([SHADES, SHADES[::-1], 1 - SHADES])
    stored = np.rint(colour * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    if photometric == "YBR_FULL":
        stored = pydicom.pixels.convert_color_space(stored, "RGB", "YBR_FULL")
    pixels = np.moveaxis(stored, -1, 0) if planar else stored
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = dicom(
        stored,
        syntax=syntax,
        PhotometricInterpretation=photometric,
        PlanarConfiguration=planar,
        BitsStored=bits,
        PixelData=np.ascontiguousarray(pixels).astype(stored.dtype.newbyteorder(order)).tobytes(),
    )
    assert np.abs(show(data) - colour).max() < 0.012


# What real files do.


def test_padding_is_black_whichever_end_is_black() -> None:
    values = np.rint((1 - SHADES) * 3000 + 1000).astype(np.uint16)
    values[:8] = 0
    expected = SHADES.copy()
    expected[:8] = 0
    elements = {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"}
    window = {"WindowCenter": 2500.5, "WindowWidth": 3001}
    assert np.abs(show(dicom(values, **elements, **window)) - expected).max() < 0.003
    assert np.abs(show(dicom(values, **elements))[:8]).max() == 0
    values[4:8] = 17
    ranged = dicom(values, **elements, PixelPaddingRangeLimit=20, **window)
    assert np.abs(show(ranged) - expected).max() < 0.003


def test_padding_that_is_written_unsigned_beside_signed_pixels() -> None:
    values = np.rint(SHADES * 1000).astype(np.int16)
    values[:8] = -2000
    padding = ("PixelPaddingValue", "US", 65536 - 2000)
    data = dicom(values, BitsStored=16)
    shown = show(changed(data, lambda dataset: dataset.add_new(*padding)))
    assert not shown[:8].any()
    assert shown[8:].max() == 1
    assert shown[8:].mean() > 0.4


def test_nothing_but_padding_is_refused() -> None:
    with pytest.raises(BadImageError, match="nothing but padding"):
        decode(dicom(np.zeros((8, 8), np.uint16), PixelPaddingValue=0))


def test_empty_numbers_count_as_absent() -> None:
    empty = {"RescaleSlope": "", "RescaleIntercept": "", "WindowCenter": "", "WindowWidth": ""}
    data = dicom(RAMP, **empty, PixelPaddingValue=None, NumberOfFrames="")
    assert np.array_equal(decode(data).values, decode(dicom(RAMP)).values)
    assert decode(data).notes == ()


def test_a_table_that_says_16_bits_and_holds_12() -> None:
    sequence = table(np.arange(4096), 16)
    assert np.abs(show(dicom(RAMP, VOILUTSequence=sequence)) - RAMP / 4095).max() < 0.003


def test_a_palette_of_8_bits_in_16() -> None:
    index = np.rint(SHADES * 255).astype(np.uint8)
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for entries in (np.arange(256), np.arange(256) * 256, np.arange(256) * 257):
        for name in ("Red", "Green", "Blue"):
            elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            elements[f"{name}PaletteColorLookupTableData"] = entries.astype("<u2").tobytes()
        assert np.array_equal(show(dicom(index, **elements))[..., 0] * 255, index)


def enhanced(num_frames: int, windows: str) -> bytes:
    """Frames of values from 500, 1000 brighter each time; HU after a rescale that only the
    functional groups have, as the window ``windows`` says."""
    frames = np.stack([np.rint(SHADES * 2000 + 500) + 1000 * frame for frame in range(num_frames)])

    def group(name: str, **elements: Any) -> Dataset:
        item, outer = Dataset(), Dataset()
        for key, value in elements.items():
            setattr(item, key, value)
        setattr(outer, name, Sequence([item]))
        return outer

    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1000, "RescaleType": "HU"}
    shared = group("PixelValueTransformationSequence", **rescale)
    per_frame = []
    for frame in range(num_frames):
        window = {"WindowCenter": 500 + 1000 * frame, "WindowWidth": 2000}
        per_frame.append(group("FrameVOILUTSequence", **window) if windows else Dataset())
    return dicom(
        frames[0].astype(np.uint16),
        BitsStored=16,
        NumberOfFrames=num_frames,
        PixelData=frames.astype("<u2").tobytes(),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(per_frame),
    )


def test_functional_groups_hold_rescale_and_window() -> None:
    assert np.abs(show(enhanced(1, "per frame")) - SHADES).max() < 0.003
    image = decode(enhanced(1, ""))
    assert image.kind == "DICOM image, HU"
    assert (image.values.min(), image.values.max()) == (-500, 1500)


def test_each_frame_has_its_own_window() -> None:
    data = enhanced(3, "per frame")
    with pytest.raises(BadImageError, match=r"holds 3 frames, .*; data.frame=0 takes the first"):
        decode(data)
    with pytest.raises(BadImageError, match=r"holds 3 frames, counted from 0, and no data.frame=3"):
        decode(data, 3)
    for frame in range(3):
        assert np.abs(decode(data, frame).values - SHADES).max() < 0.003
        raw = decode(data, frame, use_window=False).values
        assert np.array_equal(raw, np.rint(SHADES * 2000) - 500 + 1000 * frame)


@pytest.mark.parametrize("scale", ["dtype", "range", [-1000, 1000]])
def test_a_scale_that_somebody_chose_goes_before_the_window(scale: Any) -> None:
    data = dicom(RAMP, WindowCenter=1000, WindowWidth=500, RescaleSlope=1, RescaleIntercept=-1000)
    image = fit_image(decode(data, use_window=False), None, None, scale)
    shown = scale_images([image], scale)[0][0, 0] / 255
    low, high = {"dtype": (-1000, 3095), "range": (-1000, 3092)}.get(str(scale), (-1000, 1000))
    expected = np.clip((RAMP - 1000.0 - low) / (high - low), 0, 1)
    assert np.abs(shown - expected).max() < 0.003


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_without_preamble(syntax: str) -> None:
    data = dicom(RAMP, syntax=syntax)
    dataset = pydicom.dcmread(io.BytesIO(data))
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR = syntax == ImplicitVRLittleEndian
    file.is_little_endian = syntax != ExplicitVRBigEndian
    pydicom.filewriter.write_dataset(file, dataset)
    bare = file.getvalue()
    assert bare[128:132] != b"DICM"
    assert np.array_equal(decode(bare).values, RAMP)


def test_a_deflated_data_set_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(np.zeros((2048, 1024), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    assert decode(data).values.shape == (2048, 1024)
    monkeypatch.setattr(decoding, "MAX_BYTES", 2**20)
    with pytest.raises(BadImageError, match="unpacks to more than 1 MiB"):
        decode(data)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg 2000"])
def test_a_compressed_image_that_is_larger_than_the_file_says(kind: str) -> None:
    """The decoder would allocate what the compressed image says."""
    size = struct.pack(">II", 60_000, 60_000)
    syntax, image = JPEG2000Lossless, b"\xff\x4f\xff\x51\0\x29\0\0" + size + bytes(90)
    if kind == "jpeg":
        frame = struct.pack(">BHH", 8, 60_000, 60_000)
        syntax, image = JPEGBaseline8Bit, b"\xff\xd8\xff\xc0\0\x0b" + frame + bytes(90)
    data = dicom(RAMP, syntax=syntax, PixelData=encapsulate([image]))
    with pytest.raises(BadImageError, match="60000 x 60000 pixels, more than the limit"):
        decode(data)


def test_a_missing_decoder_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", property(lambda _: False))
    data = dicom(RAMP, syntax=JPEG2000Lossless, PixelData=encapsulate([b"\xff\x4f\xff\x51"]))
    with pytest.raises(DataError, match=r"JPEG 2000 .*pip install 'lungan\[dicom\]'.*pyjpegls"):
        decode(data)


def test_video_is_named() -> None:
    data = dicom(RAMP, syntax=MPEG2MPML, PixelData=encapsulate([b"\0\0\1\xb3"]))
    with pytest.raises(BadImageError, match=r"DICOM in MPEG2 .*, which is not read"):
        decode(data)


# pydicom's own test files.

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".py")


def shown_by_pydicom(dataset: Any) -> np.ndarray:
    """From 0 to 1, as pydicom's own functions render the first frame."""
    pixels = pydicom.pixels.pixel_array(dataset, index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return pydicom.pixels.apply_color_lut(pixels, dataset)[..., :3] / 65535
    if pixels.ndim == 3:
        return pixels / (2.0**dataset.BitsStored - 1)
    values = pydicom.pixels.apply_modality_lut(pixels, dataset).astype(float)
    low, high = values.min(), values.max()
    if dataset.get("WindowWidth"):
        centre, width = dataset.WindowCenter, dataset.WindowWidth
        centre, width = (end if isinstance(end, float) else end[0] for end in (centre, width))
        low, high = centre - width / 2, centre + width / 2 - 1
    elif values.min() >= 0 and dataset.BitsStored <= 8:
        low, high = 0, 2.0**dataset.BitsStored - 1
    shades = np.clip((values - low) / (high - low), 0, 1)
    return 1 - shades if dataset.PhotometricInterpretation == "MONOCHROME1" else shades


@pytest.mark.filterwarnings("ignore")
def test_pydicoms_test_files(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Each is right, or refused by name, and nothing is said on stderr or in the log."""
    shown, refused = {}, {}
    with quiet():
        for path in FILES:
            try:
                image = decode(path.read_bytes(), 0)
            except BadImageError as error:
                refused[path.relative_to(FOLDER).as_posix()] = str(error)
                continue
            fitted = fit_image(image, max(image.values.shape[:2]), None)
            assert fitted.mode.startswith("DICOM ")
            shown[path.relative_to(FOLDER).as_posix()] = image
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert len(shown) >= 80
    for name, image in shown.items():
        ends = (image.black, image.white)
        if not image.is_display:
            ends = (image.values.min(), image.values.max())
        values = (image.values.astype(float) - ends[0]) / (ends[1] - ends[0])
        expected = shown_by_pydicom(pydicom.dcmread(FOLDER / name))
        assert np.abs(values - expected).max() < 0.01, name
    # Its compressed image starts with a damaged header, which pydicom does not read either.
    assert "more than the limit" in refused.pop("JPEG2000-embedded-sequence-delimiter.dcm")
    for name, reason in refused.items():
        assert reason.startswith(("DICOM", "not a ", "gzip", "holds ")), (name, reason)
    assert refused["dicomdirtests/DICOMDIR"] == (
        "DICOM without pixel data (Media Storage Directory Storage)"
    )
    assert "less than expected" in refused["MR_truncated.dcm"]
