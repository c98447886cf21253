"""Whether an NVIDIA driver can run a torch that is built for some CUDA version.

The one rule: a driver runs every minor version of the major versions of CUDA that it knows.
"""

from __future__ import annotations

__all__ = ["cuda_major", "problem", "runs"]

# The first driver that runs programs built for a CUDA version, by CUDA's minor version compatibility.
OLDEST = {12: 525, 13: 580}


def cuda_major(driver: str) -> int:
    """The newest major version of CUDA that a driver runs; 0 for one that is older than all known here.

    Args:
        driver: its version, as "570.86.15".
    """
    number = int(driver.partition(".")[0])
    return max((major for major, oldest in OLDEST.items() if number >= oldest), default=0)


def runs(driver_major: int, torch_cuda: str) -> bool:
    """Whether a driver runs what is built for a CUDA version.

    Args:
        driver_major: the newest major version of CUDA that it runs.
        torch_cuda: CUDA's version, as "12.8"; empty if torch was built without.
    """
    return not torch_cuda or driver_major >= int(torch_cuda.partition(".")[0])


def problem(driver: str, torch_cuda: str) -> str:
    """Compare a driver with what torch was built for.

    Args:
        driver: its version, as "570.86.15".
        torch_cuda: CUDA's version, as "12.8"; empty if torch was built without.

    Returns:
        What is wrong and what to do, empty if they fit.
    """
    major = cuda_major(driver)
    if runs(major, torch_cuda):
        return ""
    oldest = OLDEST.get(int(torch_cuda.partition(".")[0]))
    newer = f"it must be {oldest} or newer" if oldest else "take a newer one"
    instead = f", or install with `--cuda {major}`" if major else ""
    return f"too old for torch built for CUDA {torch_cuda}: {newer}{instead}"
