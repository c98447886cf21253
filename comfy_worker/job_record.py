"""What the log says about one job, in one line at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["JobRecord"]

log = logging.getLogger(__name__)


@dataclass
class JobRecord:
    """The facts of one job, collected while it runs. None of them is a client's text or picture.

    Attributes:
        workflow: the template's name, or ``custom``; empty if the job did not get that far.
        stages: by name, milliseconds; the timer of the job fills it.
        steps: sampling steps; None for a workflow without a sampler.
        files: number of files in the result.
        bytes: their size before base64.
        warnings: number of warnings in the result.
        code: the error's code; empty for a job that succeeded.
    """

    workflow: str = ""
    stages: Mapping[str, int] = field(default_factory=dict)
    steps: int | None = None
    files: int = 0
    bytes: int = 0
    warnings: int = 0
    code: str = ""

    def write(self, duration_ms: float) -> None:
        """Log the job's line.

        Args:
            duration_ms: the time from taking the job to its answer.
        """
        fields: dict[str, Any] = {"duration_ms": round(duration_ms), "workflow": self.workflow}
        fields |= {f"{name}_ms": value for name, value in self.stages.items()}
        fields |= {"steps": self.steps, "files": self.files, "bytes": self.bytes}
        fields |= {"warnings": self.warnings, "code": self.code}
        known = {key: value for key, value in fields.items() if value not in (None, "")}
        text = "failed" if self.code else "done"
        log.info("job %s", text, extra={"action": "job.done", "fields": known})
