"""Checks whether an NVIDIA driver can run a torch that is built for some CUDA version.

A driver runs every minor version of each major version of CUDA that it supports.
"""

from __future__ import annotations

__all__ = ["cuda_major", "problem", "runs"]

# By major CUDA version, the first driver that runs all its minor versions.
OLDEST = {12: 525, 13: 580}


def cuda_major(driver: str) -> int:
    """The newest major version of CUDA that a driver runs; 0 if the driver is too old for all.

    Args:
        driver: the driver's version, such as "570.86.15".
    """
    number = int(driver.partition(".")[0])
    return max((major for major, oldest in OLDEST.items() if number >= oldest), default=0)


def runs(driver_major: int, torch_cuda: str) -> bool:
    """Whether a driver runs programs that are built for a CUDA version.

    Args:
        driver_major: the newest major version of CUDA that the driver runs.
        torch_cuda: such as "12.8"; empty if torch is built without CUDA.
    """
    return not torch_cuda or driver_major >= int(torch_cuda.partition(".")[0])


def problem(driver: str, torch_cuda: str) -> str:
    """Compare a driver with the CUDA version that torch is built for.

    Args:
        driver: the driver's version, such as "570.86.15".
        torch_cuda: such as "12.8"; empty if torch is built without CUDA.

    Returns:
        What is wrong and what to do; empty if they fit.
    """
    major = cuda_major(driver)
    if runs(major, torch_cuda):
        return ""
    oldest = OLDEST.get(int(torch_cuda.partition(".")[0]))
    newer = f"it must be {oldest} or newer" if oldest else "install a newer one"
    instead = f", or install with `--cuda {major}`" if major else ""
    return f"too old for torch built for CUDA {torch_cuda}: {newer}{instead}"
