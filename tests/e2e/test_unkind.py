"""The real worker behind an endpoint that drops connections and answers with errors and web pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfy_local.endpoint import LocalEndpoint, Unkind
from tests import placeholders
from tests.e2e.unkind_run import UnkindRun

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

SHARE = 0.2


def test_every_job_gets_its_own_answer(model_root: Path, tmp_path: Path) -> None:
    unkind = Unkind(slow_s=0.3)
    environ = {
        **os.environ,
        "MODELS_DIR": str(model_root),
        "SD_MODEL": placeholders.CHECKPOINT,
        "TMPDIR": str(tmp_path),
    }
    log = tmp_path / "worker.log"
    with LocalEndpoint(environ=environ, log_path=log, unkind=unkind) as endpoint:
        assert endpoint.wait_ready(300), log.read_text()
        run = UnkindRun(endpoint, unkind, SHARE)
        run.run(jobs=16, outage_s=3.0)
    assert run.problems == []
    assert run.outcomes == {"own picture": 17}
    assert "action=result.retry" in log.read_text()
