"""Reads the header of a GGUF file, and checks that the file is complete.

A GGUF file is a magic word, a version, two counts, metadata, the tensors' names and shapes, then
the data. Standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from comfy_common.damaged_model import DamagedModel, content_name

SUFFIX = ".gguf"
MAGIC = b"GGUF"
# Version 1 has other number widths. Nobody publishes models in it.
KNOWN_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# No model has more. Without limits, a forged header would take all memory, or much time.
MAX_TENSORS = 100_000
MAX_METADATA = 10_000
MAX_ARRAY = 5_000_000
MAX_TEXTS = 2_000_000
MAX_TEXT_BYTES = 10_000_000
MAX_HEADER_BYTES = 100_000_000
MAX_ARRAYS = 20_000
MAX_AXES = 8
MAX_NESTED_ARRAYS = 4

TEXT, ARRAY = 8, 9
# The number formats of metadata, by their type.
NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
# By GGML's type number: the name, the numbers of one block, and the bytes of one block.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
# Programs that convert image models flatten some tensors and keep their shape in the metadata.
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read the tensors' names, types and shapes from a GGUF file.

    Args:
        path: the file.

    Returns:
        `{name: {"dtype": "Q4_K", "shape": [3072, 64]}}`, with shapes in the order of PyTorch. Empty
        for a version of the format that is not known.

    Raises:
        DamagedModel: the file is not a GGUF file, or is cut short.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] != MAGIC:
            raise DamagedModel(f"is not a GGUF file but {content_name(start)}")
        version = int.from_bytes(start[4:8], "little")
        if version not in KNOWN_VERSIONS:
            return {}
        try:
            return _Reader(file, size).tensors()
        except (EOFError, struct.error):
            raise DamagedModel("is cut short in its header") from None
        except (ValueError, KeyError):
            raise DamagedModel("has a damaged GGUF header") from None


class _Reader:
    """Reads a header from behind its version on."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._read_bytes = 0
        self._read_arrays = 0
        self._read_texts = 0

    def tensors(self) -> dict[str, dict[str, Any]]:
        tensor_count = self._count(MAX_TENSORS)
        metadata_count = self._count(MAX_METADATA)
        metadata: dict[str, Any] = {}
        for _ in range(metadata_count):
            name = self._text()
            metadata[name] = self._value(self._number("<I"), MAX_NESTED_ARRAYS)
        header: dict[str, dict[str, Any]] = {}
        end = 0
        for _ in range(tensor_count):
            name = self._text()
            shape = self._shape()
            type_number, offset = self._number("<I"), self._number("<Q")
            dtype, block, block_bytes = TYPES.get(type_number, (f"type {type_number}", 1, 0))
            end = max(end, offset + _product(shape) // block * block_bytes)
            original = metadata.get(ORIGINAL_SHAPE + name)
            header[name] = {"dtype": dtype, "shape": original or shape}
        self._check_size(end, metadata.get("general.alignment", DEFAULT_ALIGNMENT))
        return header

    def _check_size(self, data_bytes: int, alignment: Any) -> None:
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise ValueError("an alignment that makes no sense")
        data_start = -(-self._file.tell() // alignment) * alignment
        if self._size < data_start + data_bytes:
            raise DamagedModel(f"is cut short: {self._size} of {data_start + data_bytes} bytes")

    def _shape(self) -> list[int]:
        """Read a shape. GGUF writes the last axis first."""
        axes = self._number("<I")
        if axes > MAX_AXES:
            raise ValueError("a tensor with too many axes")
        return [int(self._number("<Q")) for _ in range(axes)][::-1]

    def _value(self, value_type: int, depth: int) -> Any:
        if value_type == TEXT:
            return self._text()
        if value_type != ARRAY:
            return self._number(NUMBERS[value_type])
        self._read_arrays += 1
        if not depth or self._read_arrays > MAX_ARRAYS:
            raise ValueError("more arrays than any model has")
        element_type = self._number("<I")
        count = self._count(MAX_ARRAY)
        if element_type in NUMBERS:
            number = struct.Struct(NUMBERS[element_type])
            data = self._bytes(count * number.size)
            if count > MAX_AXES:
                return []  # a vocabulary; only shapes are wanted
            return [entry for (entry,) in number.iter_unpack(data)]
        if element_type == TEXT:
            self._skip_texts(count)
            return []  # a vocabulary
        return [self._value(element_type, depth - 1) for _ in range(count)]

    def _skip_texts(self, count: int) -> None:
        self._read_texts += count
        if self._read_texts > MAX_TEXTS:
            raise ValueError("more words than any model has")
        for _ in range(count):
            self._bytes(int.from_bytes(self._bytes(8), "little"))

    def _text(self) -> str:
        length = self._number("<Q")
        if length > MAX_TEXT_BYTES:
            raise ValueError("a text that is too long")
        return self._bytes(length).decode("utf-8", "replace")

    def _count(self, limit: int) -> int:
        count = int(self._number("<Q"))
        if count > limit:
            raise ValueError("a count that is too large for any file")
        return count

    def _number(self, number_format: str) -> Any:
        (value,) = struct.unpack(number_format, self._bytes(struct.calcsize(number_format)))
        return value

    def _bytes(self, count: int) -> bytes:
        self._read_bytes += count
        if self._read_bytes > MAX_HEADER_BYTES:
            raise ValueError("a header that is longer than that of any model")
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError
        return data


def _product(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
