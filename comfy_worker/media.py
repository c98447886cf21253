"""Pictures that a client sent: base64 or data URI -> verified bytes in the job's own folder.

The type is decided by content, never by name. Knows nothing of graphs.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from pathlib import Path

from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from comfy_worker.errors import InvalidMedia

__all__ = ["mask_file", "read_image", "read_mask", "store", "with_mask"]

DATA_URI = re.compile(r"data:[^,]{0,200}?;base64,", re.ASCII)
MAX_PIXELS = 64_000_000
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


def decode(key: str, value: str) -> bytes:
    """Decode base64, with or without a data URI's head.

    Args:
        key: where the value stood in the input, for the error.
        value: base64 text; white space in it is ignored.

    Raises:
        InvalidMedia: it is neither.
    """
    if re.match(r"[a-z][a-z0-9+.-]*://", value, re.IGNORECASE):
        raise InvalidMedia(f"{key} is a URL, which this worker does not fetch; send base64 or a data URI instead")
    head = DATA_URI.match(value)
    text = "".join((value[head.end() :] if head else value).split())
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMedia(f"{key} must be base64 or a data URI of a picture") from None


def read_image(key: str, value: str) -> Image.Image:
    """Decode and verify a picture, its EXIF orientation applied.

    Args:
        key: where it stood in the input, for the error.
        value: base64 or a data URI of a file in any format that Pillow reads; of an animation, the first frame.

    Raises:
        InvalidMedia: it is no picture, is cut short, or has more than 64 million pixels.
    """
    data = decode(key, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                image = ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidMedia(f"{key} has too many pixels; send at most {MAX_PIXELS:,}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        raise InvalidMedia(
            f"{key} is no picture that can be read, or is cut short; send PNG, JPEG or WebP"
        ) from None
    return image if image.mode in PNG_MODES else image.convert("RGB")


def read_mask(key: str, value: str) -> Image.Image:
    """Decode and verify a mask: the alpha channel of a picture that has one, the grey of any other.

    Returns:
        A picture of mode L, 255 = make anew.
    """
    image = read_image(key, value)
    if image.has_transparency_data:
        return image.convert("RGBA").getchannel("A")
    return image.convert("L")


def mask_file(mask: Image.Image) -> Image.Image:
    """A mask as ``LoadImageMask`` reads it alike from any channel: it inverts alpha and no other."""
    return Image.merge("RGBA", [mask, mask, mask, ImageChops.invert(mask)])


def with_mask(image: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture that carries its mask as ``LoadImage`` reads it: transparent = make anew."""
    masked = image.convert("RGBA")
    masked.putalpha(ImageChops.invert(mask if mask.size == image.size else mask.resize(image.size)))
    return masked


def store(image: Image.Image, folder: Path, key: str) -> str:
    """Write a picture as PNG into the job's own folder under a name that we choose.

    Args:
        image: verified.
        folder: the job's own below ComfyUI's input folder; made if it is not there.
        key: where it stood in the input.

    Returns:
        The file as ``LoadImage`` names it: ``<folder>/<name>.png``.
    """
    name = re.sub(r"\W+", "_", key) + ".png"
    folder.mkdir(exist_ok=True)
    image.save(folder / name, format="PNG", compress_level=1)
    return f"{folder.name}/{name}"
