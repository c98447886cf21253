"""Parts of torch that ComfyUI's start leaves out."""

from __future__ import annotations

import os
import subprocess
import sys

from comfy_common.paths import CUSTOM_NODES

SCRIPT = CUSTOM_NODES / "comfy_worker_nodes" / "prestartup_script.py"
RUN = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); import torch, torchvision; "
BOXES = "torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])"
ALIGN = f"print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), {BOXES}, (1, 1)).item())"


def python(code: str, switch: str) -> str:
    environ = {**os.environ, "COMFY_WORKER_DEFER_IMPORTS": switch}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN + code],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_function_works_and_dynamo_is_not_loaded() -> None:
    loaded = "print('torch._dynamo' in sys.modules); "
    assert python(loaded + ALIGN, "1") == "False\n1.0"


def test_switch_keeps_the_import() -> None:
    assert python("print('torch._dynamo' in sys.modules)", "0") == "True"
