"""Asks NVIDIA's driver for properties of the GPUs, without torch."""

from __future__ import annotations

import subprocess

__all__ = ["query_gpus"]

ANSWER_S = 20.0


def query_gpus(*fields: str, units: bool = True) -> str:
    """Ask nvidia-smi for some properties of all GPUs.

    Args:
        fields: nvidia-smi's names, such as ``memory.total``.
        units: whether to write the unit after each number.

    Returns:
        One line per GPU, its values separated by commas; empty without a GPU.

    Raises:
        FileNotFoundError: nvidia-smi is not installed.
        subprocess.SubprocessError: it failed, or did not answer in time.
    """
    output_format = "csv,noheader" if units else "csv,noheader,nounits"
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", f"--format={output_format}"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)
    return finished.stdout
