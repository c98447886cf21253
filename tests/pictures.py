"""Pictures that tests send."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageDraw

__all__ = ["encoded", "mask", "photo"]


def photo(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An ellipse on a plain ground."""
    image = Image.new("RGB", size, "navy")
    ImageDraw.Draw(image).ellipse((size[0] // 5, size[1] // 3, size[0] * 4 // 5, size[1] * 2 // 3), fill="gold")
    return image


def mask(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A mask whose right half is to be made anew."""
    image = Image.new("L", size, 0)
    image.paste(255, (size[0] // 2, 0, *size))
    return image


def encoded(image: Image.Image) -> str:
    """A picture as base64 of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
