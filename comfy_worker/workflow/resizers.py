"""Recognizes nodes that change the size of a picture or latent, by their class and inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["RESIZER_CLASSES", "SIDES", "sets_size", "short_names"]

SIDES = ("width", "height")
# Classes that may change a picture's size by more than their inputs say.
RESIZER_CLASSES = re.compile(r"Scale|Resize|Crop|Pad|Stitch|Concat", re.IGNORECASE)
# Inputs with which a node keeps a picture's shape.
KEEPS_SHAPE = re.compile(r"proportion|aspect|divisible")


def short_names(inputs: Mapping[str, object]) -> dict[str, str]:
    """Return a node's input names by their short form: ``width`` for ``resize.target_width``."""
    return {name.rpartition(".")[2].removeprefix("target_"): name for name in inputs}


def sets_size(names: Mapping[str, str]) -> bool:
    """Whether a node with these short names has a width and height that ignore the shape before."""
    return names.keys() >= set(SIDES) and not KEEPS_SHAPE.search(" ".join(names))
