"""DICOM images through pydicom, an extra, as a viewer would show them.

Source: DICOM PS3.3, C.11.1 (modality), C.11.2 (VOI), C.7.6.3.1.2 (photometric interpretation).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.data.headers import BadImageError, check_size
from lungan.errors import DataError


def decode_dicom(data: bytes) -> NDArray[Any]:
    """(H, W) uint16, black at 0 and white at 65535, or (H, W, 3) RGB as stored.

    Grey values go through the rescale or modality table, then through the first window or VOI
    table; where the file has neither, the whole range of its stored bits becomes the scale.

    Raises: BadImageError, or DataError where pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DataError("DICOM files need pydicom: pip install 'lungan[dicom]'") from error
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        return _render(dataset)
    except BadImageError:
        raise
    # pydicom and its plug-ins answer damaged files with whatever exception comes up, their own
    # included, which share no base class.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadImageError(f"DICOM cannot be decoded: {reason}") from error


def _render(dataset: Any) -> NDArray[Any]:
    from pydicom.pixels.processing import apply_color_lut

    if "PixelData" not in dataset:
        raise BadImageError("DICOM without pixel data")
    check_size(int(dataset.Columns), int(dataset.Rows))
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise BadImageError(f"DICOM of {dataset.NumberOfFrames} frames; one image a file is read")
    photometric = dataset.PhotometricInterpretation
    stored = dataset.pixel_array
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        bits = 8 * stored.dtype.itemsize
        if photometric != "PALETTE COLOR":
            bits = int(dataset.BitsStored)
        return _to_full_range(stored, bits)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadImageError(f"DICOM with photometric interpretation {photometric}")
    shades = _shades(stored, dataset)
    if photometric == "MONOCHROME1":
        shades = 1 - shades
    return np.rint(shades * 65535).astype(np.uint16)


def _to_full_range(colour: NDArray[Any], bits: int) -> NDArray[Any]:
    if colour.dtype == np.uint8 and bits == 8:
        return colour
    return np.asarray(np.rint(colour * (65535 / (2**bits - 1))), dtype=np.uint16)


def _shades(stored: NDArray[Any], dataset: Any) -> NDArray[np.float64]:
    """From 0 to 1, before any inversion."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    bits = int(dataset.BitsStored)
    low, high = 0.0, 2.0**bits - 1
    if int(dataset.PixelRepresentation) == 1:
        low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    values = apply_modality_lut(stored, dataset)
    if dataset.get("ModalityLUTSequence"):
        low, high = 0.0, 2.0 ** _table_bits(dataset.ModalityLUTSequence[0]) - 1
    elif "RescaleSlope" in dataset and "RescaleIntercept" in dataset:
        ends = [
            end * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
            for end in (low, high)
        ]
        low, high = min(ends), max(ends)
    if dataset.get("VOILUTSequence"):
        values = apply_voi(values, dataset)
        low, high = 0.0, 2.0 ** _table_bits(dataset.VOILUTSequence[0]) - 1
    elif dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        return _window(values.astype(np.float64), dataset)
    if not low < high:
        raise BadImageError("DICOM whose rescale slope is 0")
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)


def _table_bits(table: Any) -> int:
    return int(table.LUTDescriptor[2])


def _window(values: NDArray[np.float64], dataset: Any) -> NDArray[np.float64]:
    """Source: PS3.3, C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT)."""
    centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if not width > 0 or (function == "LINEAR" and width < 1):
        raise BadImageError(f"DICOM whose window is {width:g} wide")
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


def _first(value: Any) -> float:
    """Several windows are alternative views, of which the first is the one meant by default."""
    try:
        return float(value)
    except TypeError:
        return float(value[0])
