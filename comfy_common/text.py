"""Formats sizes and durations for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format a duration.

    Args:
        seconds: 0 or more.

    Returns:
        "0.4 s", "12 s", "3 min 05 s", "7 h 30 min" or "3 days".
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    if seconds < 2 * 86400:
        return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"
    return f"{seconds / 86400:.0f} days"


def size(count: float) -> str:
    """Format a number of bytes.

    Args:
        count: bytes, 0 or more.

    Returns:
        "9 kB", "12 MB" or "7.4 GB" (powers of 1000).
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def megabytes(count: float) -> str:
    """Format a number of bytes so precisely that it can be compared with a limit.

    Args:
        count: bytes, 0 or more.

    Returns:
        "0.25 MB", "20.1 MB" or "2,662 MB" (millions of bytes, with three digits or more).
    """
    value = count / 1e6
    return f"{value:.3g} MB" if value < 999.5 else f"{value:,.0f} MB"
