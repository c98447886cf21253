"""The error for a damaged model file, and the names of contents by their first bytes."""

from __future__ import annotations


class DamagedModel(Exception):
    """A file is not a model, or is incomplete. The text follows the file's name: "is cut short"."""


def content_name(start: bytes) -> str:
    """Name the content of a file.

    Args:
        start: its first eight bytes or more; fewer if the file is shorter.
    """
    if not start:
        return "empty"
    if start.lstrip()[:1] == b"<":
        return "a web page"
    if start[:2] == b"PK":
        return "a zip archive (as .ckpt and .pt files are)"
    if start[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}:
        return "a pickle (.ckpt or .pt)"
    if start[:4] == b"GGUF":
        return "a GGUF file (name it .gguf)"
    if start.startswith(b"version "):
        return "a Git LFS pointer (the file itself was not downloaded)"
    if len(start) >= 9 and start[8:9] == b"{":
        return "a safetensors file (name it .safetensors)"
    return "something else"
