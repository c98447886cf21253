"""Imports the SDK without the packages that only its debugger and its command line need.

``cpuinfo`` starts processes to find the processor's name, which takes up to a second, and
``paramiko`` with what it needs is a quarter of all modules. Stand-ins take their names while the
SDK is imported. A stand-in imports the real package when somebody uses it.
"""

from __future__ import annotations

import importlib
import platform
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["import_sdk"]

CPUINFO_FILE = Path("/proc/cpuinfo")


def import_sdk() -> None:
    """Import ``runpod``; does nothing if it is imported already."""
    if "runpod" in sys.modules:
        return
    stand_ins = {"cpuinfo": _StandIn("cpuinfo"), "paramiko": _StandIn("paramiko")}
    stand_ins["cpuinfo"].__dict__["get_cpu_info"] = _cpu_info
    placed = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(placed)
    try:
        importlib.import_module("runpod")
    finally:
        # Whoever else imports these packages gets the real ones.
        for name, module in placed.items():
            _remove(name, module)


class _StandIn(ModuleType):
    """Takes the place of a package until one of its names is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for these itself
            raise AttributeError(name)
        package = self.__name__
        _remove(package, self)
        return getattr(importlib.import_module(package), name)


def _remove(name: str, module: ModuleType) -> None:
    if sys.modules.get(name) is module:
        del sys.modules[name]


def _cpu_info() -> dict[str, str]:
    """Return the one value that the SDK reads of ``cpuinfo.get_cpu_info``."""
    return {"brand_raw": _processor() or platform.processor() or platform.machine()}


def _processor() -> str:
    """Return the processor's name as Linux knows it; empty on other systems and on ARM."""
    with suppress(OSError):
        for line in CPUINFO_FILE.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""
