"""torchvision, imported so that a build without its compiled operators works too.

A torchvision wheel made for another torch (a CUDA wheel beside CPU torch) cannot load its operators
and then fails on import, because it describes two of them to torch without asking whether they
exist. lungan uses its networks only, which need neither.
"""

from __future__ import annotations

import torch

__all__ = ["torchvision"]

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# torch forgets a schema when its library is collected, so the handle lives as long as the module.
_library: torch.library.Library | None = None


def _define_missing_operators() -> None:
    global _library
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            _library.define(schema)  # type: ignore[no-untyped-call]


# The plain import comes first: where the operators do load, defining them before is an error.
try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::" not in str(error):
        raise
    _define_missing_operators()
    import torchvision
