"""DICOM images through pydicom, an extra, as a viewer would show them.

Source: DICOM PS3.3, C.11.1 (modality), C.11.2 (VOI), C.7.6.3.1.2 (photometric interpretation),
C.7.6.16.2 (functional groups), C.7.5.1.1.2 (padding).
"""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from lungan.data.decode import (
    DICOM_EXTRA,
    BadImageError,
    StoredImage,
    check_coded_size,
    check_size,
    choose_frame,
    display,
    measure,
    most_unpacked,
    narrow_palette,
    say_type,
)
from lungan.errors import DataError

_DEFLATED = b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"
"""The element of the file's own header that says that the data set is deflated."""


def decode_dicom(data: bytes, frame: int | None, *, use_window: bool) -> StoredImage:
    """Grey values go through the rescale or modality table, then, where ``use_window``, through
    the first window or VOI table, to 0..1. Without one they are the file's own.

    Raises: BadImageError, DataError where a decoder that it needs is not installed, and whatever
    pydicom and its decoders answer damaged files with.
    """
    if _DEFLATED in data[:1024]:
        # The data set follows the file's own header, which says how long it is.
        _check_inflated(data[144 + int.from_bytes(data[140:144], "little") :])
    dataset = pydicom.dcmread(io.BytesIO(data), force=data[128:132] != b"DICM")
    _check_header(dataset, len(data))
    index = choose_frame(int(dataset.get("NumberOfFrames") or 1), frame)
    stored = _stored_pixels(dataset, index)
    if dataset.get("Modality") == "SEG":
        raise BadImageError("DICOM segmentation, a mask and no image")
    modality = f"DICOM {dataset.get('Modality') or 'image'}"
    photometric = dataset.PhotometricInterpretation
    if stored.ndim == 2 and photometric in ("MONOCHROME1", "MONOCHROME2"):
        _take_functional_groups(dataset, index)
        return _render_grey(stored, dataset, modality, use_window)
    if photometric == "PALETTE COLOR" or (
        stored.ndim == 3 and photometric.startswith(("RGB", "YBR"))
    ):
        return _render_colour(stored, dataset, modality)
    raise BadImageError(f"DICOM with photometric interpretation {photometric}")


def _check_inflated(data: bytes) -> None:
    """Raises: BadImageError where zlib would unpack ``data`` to more than such a file may."""
    unpacker, num_bytes, limit = zlib.decompressobj(-15), 0, most_unpacked(len(data))
    while data:
        num_bytes += len(unpacker.decompress(data, 2**24))
        if num_bytes > limit:
            raise BadImageError(f"unpacks to more than {limit // 2**20} MiB")
        data = unpacker.unconsumed_tail


def _check_header(dataset: Any, file_bytes: int) -> None:
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        what = getattr(dataset.get("SOPClassUID"), "name", None) or (
            getattr(dataset.file_meta.get("MediaStorageSOPClassUID"), "name", None)
        )
        raise BadImageError(f"DICOM without pixel data{f' ({what})' if what else ''}")
    for key in ("Rows", "Columns", "BitsAllocated"):
        if not dataset.get(key):
            raise BadImageError(f"DICOM without {key}")
    bits = int(dataset.get("SamplesPerPixel") or 1) * int(dataset.BitsAllocated)
    check_size(int(dataset.Columns), int(dataset.Rows), bits, file_bytes)


def _stored_pixels(dataset: Any, index: int) -> NDArray[Any]:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:  # As in files without a preamble, whose encoding pydicom has guessed.
        is_implicit, is_little_endian = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if is_little_endian else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = (
            uid.ImplicitVRLittleEndian if is_implicit else explicit
        )
    elif syntax.is_encapsulated:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError as error:
            raise BadImageError(f"DICOM in {syntax.name}, which is not read") from error
        if not decoder.is_available:
            raise DataError(f"DICOM files in {syntax.name} need more decoders: {DICOM_EXTRA}")
        num_frames = int(dataset.get("NumberOfFrames") or 1)
        check_coded_size(get_frame(dataset.PixelData, index, number_of_frames=num_frames))
    # pylibjpeg's decoder of run lengths ends the process over damaged files.
    plugin = "pydicom" if syntax == uid.RLELossless else ""

    def read() -> NDArray[Any]:
        return np.asarray(pixel_array(dataset, index=index, decoding_plugin=plugin))

    bits, stored = int(dataset.get("BitsStored") or 0), read()
    high_bit = min(int(dataset.get("HighBit") or 0), dataset.BitsAllocated - 1)
    if not bits or high_bit < bits or (syntax and syntax.is_encapsulated):
        return stored
    # PS3.5, 8.1.1, before 2014: the highest bit stands higher than the number of bits says.
    # pydicom leaves out the bits above those stored, and none below.
    dataset.BitsStored = high_bit + 1
    shifted, shift = read(), high_bit + 1 - bits
    dataset.BitsStored = bits
    if not (shifted & (2**shift - 1)).any():
        return np.asarray(shifted >> shift)
    if -(2 ** (bits - 1)) <= shifted.min() and shifted.max() < 2**bits:
        return stored  # The header is wrong, as pydicom and viewers take it to be.
    raise BadImageError(
        f"DICOM of {bits} bits whose high bit is {high_bit}, while other bits hold values, too; if "
        f"the values stand in the low bits, write HighBit={bits - 1} into the file"
    )


def _render_colour(stored: NDArray[Any], dataset: Any, modality: str) -> StoredImage:
    bits = int(dataset.BitsStored)
    if stored.dtype.kind != "u":
        raise BadImageError(f"DICOM of colour in {stored.dtype}")
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        num_entries, first, _ = dataset.RedPaletteColorLookupTableDescriptor
        last = (num_entries or 2**16) - 1
        palette = apply_color_lut(np.arange(first, first + last + 1), dataset)[:, :3]
        entries = np.clip(stored.astype(np.int64) - first, 0, last)
        stored, bits = narrow_palette(palette)[entries], 8
    return replace(display(stored, bits), mode=f"{modality}, colour {bits} bit")


def _take_functional_groups(dataset: Any, index: int) -> None:
    """Put what the functional groups of the frame say into the data set itself."""
    for name, item in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", index),
    ):
        for groups in (dataset.get(name) or [])[item : item + 1]:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for element in (groups.get(macro) or [()])[0]:
                    if not element.is_empty:
                        dataset[element.tag] = element


def _number(dataset: Any, name: str) -> float | None:
    """The first of several numbers: several windows are alternative views, of which the first is
    the one meant by default. None where there is none."""
    value = dataset.get(name)
    if value is None or value == "" or value == []:
        return None
    return float(value) if isinstance(value, int | float | str) else float(value[0])


def _render_grey(
    stored: NDArray[Any], dataset: Any, modality: str, use_window: bool
) -> StoredImage:
    is_negative = dataset.PhotometricInterpretation == "MONOCHROME1"
    padding = _padding(stored, dataset)
    values, low, high, kind = _modality_values(stored, dataset)
    mode = f"{modality}, {kind}"
    if use_window and (shades := _voi_shades(values, low, dataset)) is not None:
        shades = 1 - shades if is_negative else shades
        return StoredImage(
            values=np.where(padding, np.float32(0), shades.astype(np.float32)),
            black=0,
            white=1,
            is_display=True,
            kind=f"{modality}, window",
            mode=mode,
            notes=("seen through the DICOM file's own window",),
        )
    if values is stored and stored.dtype.kind == "u" and high <= 255:
        # As other 8-bit files: values to be seen as they are.
        shown = display(np.minimum(values, high).astype(np.uint8), int(dataset.BitsStored))
        upright = 255 - shown.values if is_negative else shown.values
        return replace(shown, values=np.where(padding, np.uint8(0), upright), mode=mode)
    return measure(values, low, high, is_negative, mode, padding)


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_]:
    value = _number(dataset, "PixelPaddingValue")
    if value is None or stored.dtype.kind == "f":
        return np.zeros(stored.shape, np.bool_)
    limit = _number(dataset, "PixelPaddingRangeLimit")
    # Some files write a signed value as the unsigned one of the same bits.
    ends = np.array([value, value if limit is None else limit], np.int64).astype(stored.dtype)
    return np.asarray((stored >= ends.min()) & (stored <= ends.max()))


def _modality_values(stored: NDArray[Any], dataset: Any) -> tuple[NDArray[Any], float, float, str]:
    """Values in the modality's units, the ends that the file's type gives them, and their name."""
    low, high, kind = say_type(stored.dtype.kind, int(dataset.get("BitsStored") or 0))
    if tables := dataset.get("ModalityLUTSequence"):
        values, high = _look_up(stored, tables[0], dataset, low)
        return values, 0.0, high, "modality table"
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept") or 0.0
    slope = 1.0 if slope is None else slope
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise BadImageError(f"DICOM whose rescale slope is {slope:g}, intercept {intercept:g}")
    if (slope, intercept) == (1, 0):
        return stored, low, high, kind
    ends = sorted((low * slope + intercept, high * slope + intercept))
    unit = dataset.get("RescaleType") or ("HU" if dataset.get("Modality") == "CT" else None)
    kind = f"{unit}" if unit and unit != "US" else "rescaled"
    return stored * slope + intercept, ends[0], ends[1], kind


def _look_up(
    values: NDArray[Any], item: Any, dataset: Any, low: float
) -> tuple[NDArray[Any], float]:
    """What a lookup table has for the values, and its largest entry. Values before the first
    entry take the first, values after the last the last. low: the least that values can be."""
    num_entries, first, _ = (int(number) for number in item.LUTDescriptor)
    entries = item.LUTData
    if isinstance(entries, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        is_narrow = len(entries) <= (num_entries or 2**16)
        entries = np.frombuffer(entries, np.uint8 if is_narrow else f"{order}u2")
    if first > 32767 and low < 0:  # Signed, but read as unsigned.
        first -= 2**16
    entries = np.atleast_1d(np.asarray(entries))[: num_entries or 2**16]
    indices = np.clip(np.rint(values.astype(np.float64)) - first, 0, len(entries) - 1)
    return np.asarray(entries[indices.astype(np.intp)]), float(entries.max())


def _voi_shades(values: NDArray[Any], low: float, dataset: Any) -> NDArray[np.float64] | None:
    """From 0 to 1, before any inversion; None where there is neither table nor window.

    Source: PS3.3, C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT).
    """
    if tables := dataset.get("VOILUTSequence"):
        # By the real maximum: descriptors say 16 bits where the entries have 12.
        values, largest = _look_up(values, tables[0], dataset, low)
        return values / max(1.0, largest)
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if centre is None or width is None:
        return None
    values = values.astype(np.float64)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if not width > 0 or (function == "LINEAR" and width < 1):
        raise BadImageError(f"DICOM whose window is {width:g} wide; data.scale=range ignores it")
    if function == "LINEAR":
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "SIGMOID":
        # The logistic function of 4 (x - centre) / width, written so that nothing overflows.
        return np.asarray(0.5 + 0.5 * np.tanh(2 * (values - centre) / width))
    raise BadImageError(f"DICOM with VOI LUT function {function}")
