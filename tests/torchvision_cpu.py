"""Lets torchvision's CUDA wheel be imported beside the CPU build of torch. Import this before anything that uses torch.

Such a wheel's compiled part cannot be loaded, and the Python part then stops at two operators that nobody
declared. transformers' image processors need neither. A torchvision that fits its torch is left as it is.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare() -> torch.library.Library | None:
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    try:
        for compiled in Path(found.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(compiled))
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(f"nms{_SCHEMA}")
        library.define(f"qnms{_SCHEMA}")
        return library
    return None


LIBRARY = _declare()  # held here: the declarations go when it goes
