"""Finds in ComfyUI's log which node packs did not load, and why."""

from __future__ import annotations

import re
from pathlib import Path

from comfy_common.comfyui_log import plain_line

__all__ = ["ImportFailures"]

FAILURES = tuple(
    re.compile(pattern)
    for pattern in (
        r"Cannot import (?P<path>.+?) module for custom nodes: (?P<why>.*)",
        r"Error while calling comfy_entrypoint in (?P<path>.+?): (?P<why>.*)",
        r"(?P<path>/\S.*?)/prestartup_script\.py / (?P<why>.*)",
    )
)
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: |$)")
# The table at the end of the start, and the line for a pack that has no nodes although it raised
# nothing.
IN_TABLE = re.compile(r"\(IMPORT FAILED\): (?P<path>.+)$")
SKIPPED = re.compile(r"Skip (?P<path>.+?) module for custom nodes due to (?P<why>.*)")
# A pack of the newer form whose entry point is not what ComfyUI expects; ComfyUI goes on.
NO_EXTENSION = re.compile(r"comfy_entrypoint in (?P<path>.+?) (?P<rest>is not .*|did not .*)")


class ImportFailures:
    """Reads a log line by line.

    Attributes:
        reasons: by a pack's path, the exception that it raised.
        skipped: by a pack's path, why it was left out although it raised nothing.
        listed: the packs that ComfyUI lists as failed, for any reason.
    """

    def __init__(self) -> None:
        self.reasons: dict[Path, str] = {}
        self.skipped: dict[Path, str] = {}
        self.listed: list[Path] = []
        self._last_line = ""

    def read_line(self, line: str) -> Path | None:
        """Read a line.

        Returns:
            The pack that raised an exception, if the line says so.
        """
        line = plain_line(line)
        pack = None
        for pattern in FAILURES:
            if match := pattern.search(line):
                why = match["why"]
                # The exception is in the line before the line that names the pack.
                if why in self._last_line and EXCEPTION.match(self._last_line):
                    why = self._last_line
                pack = Path(match["path"])
                self.reasons[pack] = why
        if skipped := SKIPPED.search(line):
            self.skipped[Path(skipped["path"])] = f"it was skipped because of {skipped['why']}"
        if odd := NO_EXTENSION.search(line):
            rest = odd["rest"].removesuffix(", skipping.")
            self.skipped[Path(odd["path"])] = f"its comfy_entrypoint {rest}"
        if listed := IN_TABLE.search(line):
            self.listed.append(Path(listed["path"]))
        self._last_line = line
        return pack

    def failed(self) -> dict[Path, str]:
        """By pack that ComfyUI lists as failed, why it did not load."""
        known = self.skipped | self.reasons
        return {pack: known.get(pack, "ComfyUI does not say why") for pack in self.listed}
