"""Whether a machine's NVIDIA driver can run the torch that is installed here.  Standard library only."""

from __future__ import annotations

# The first driver that runs programs built for a CUDA version, by CUDA's minor version compatibility.
OLDEST = {"12": 525, "13": 580}


def problem(driver: str, cuda: str) -> str:
    """Compare a driver with what torch was built for.

    Args:
        driver: its version, as "570.86.15".
        cuda: CUDA's version, as "12.8"; empty if torch was built without.

    Returns:
        What is wrong and what to do, empty if they fit.
    """
    oldest = OLDEST.get(cuda.partition(".")[0], 0)
    if int(driver.partition(".")[0]) >= oldest:
        return ""
    others = [major for major, first in OLDEST.items() if int(driver.partition(".")[0]) >= first]
    instead = f", or install with `--cuda {others[-1]}`" if others else ""
    return f"too old for torch built for CUDA {cuda}: it must be {oldest} or newer{instead}"
