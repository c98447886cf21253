"""The PNG encoder: whatever goes in is what a reader of PNG files gets out."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from comfy_worker.imaging.png import write_plain_png, write_png

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
KEYWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=79)


@given(arrays.arrays(np.uint8, SHAPES))
def test_every_pixel_is_read_back(pixels: npt.NDArray[np.uint8]) -> None:
    for file in (write_png(pixels, {}), write_plain_png(pixels)):
        with Image.open(io.BytesIO(file)) as image:
            image.verify()
        with Image.open(io.BytesIO(file)) as image:
            assert image.mode == MODES[pixels.shape[2]]
            assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@given(st.dictionaries(KEYWORDS, st.text(st.characters(codec="utf-8"), max_size=200), max_size=3))
def test_every_text_is_read_back(text: dict[str, str]) -> None:
    with Image.open(io.BytesIO(write_png(np.zeros((1, 1, 3), np.uint8), text))) as image:
        image.load()
        assert image.text == text


def test_a_large_picture_is_smaller_than_its_pixels() -> None:
    row = np.arange(1024, dtype=np.uint8).reshape(1, -1, 1)
    pixels = np.ascontiguousarray(np.broadcast_to(row, (1024, 1024, 3)))
    assert len(write_png(pixels, {})) < pixels.nbytes / 50
