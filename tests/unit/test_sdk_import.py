"""What the worker does to the SDK at its start, each in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from comfy_common.paths import REPO


def in_fresh_python(code: str, **environ: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


IMPORT = """
import json, sys
from comfy_worker.runpod_worker.sdk_import import import_sdk
import_sdk()
import runpod
"""


def test_sdk_imports_without_debugger_packages() -> None:
    found = in_fresh_python(
        IMPORT + "print(json.dumps([n in sys.modules for n in ('cpuinfo', 'paramiko')]))"
    )
    assert found == [False, False]


def test_processor_is_still_named() -> None:
    code = (
        IMPORT
        + "from runpod.serverless.utils import rp_debugger; print(json.dumps(rp_debugger.PROCESSOR))"
    )
    processor = in_fresh_python(code)
    assert processor
    assert "Unable" not in processor


def test_stand_in_gives_real_package() -> None:
    code = """
from runpod.cli.groups.ssh import functions
import paramiko
print(json.dumps([functions.paramiko.RSAKey is paramiko.RSAKey, paramiko.__file__.endswith("__init__.py")]))
"""
    assert in_fresh_python(IMPORT + code) == [True, True]


def test_other_code_gets_real_cpuinfo() -> None:
    code = "import cpuinfo; print(json.dumps(hasattr(cpuinfo, 'get_cpu_info_json')))"
    assert in_fresh_python(IMPORT + code) is True


def test_sdk_imported_before_stays() -> None:
    code = "import runpod as before\n" + IMPORT + "print(json.dumps(before is runpod))"
    assert in_fresh_python(code) is True


CHECKS = """
import json
from runpod.serverless.modules import rp_fitness, rp_system_fitness
# A machine with a GPU, as far as the SDK can tell.
rp_system_fitness.gpu_available = lambda: True
from comfy_worker.runpod_worker.sdk_checks import leave_out_gpu_checks
leave_out_gpu_checks()
rp_fitness._ensure_gpu_check_registered()
rp_fitness._ensure_system_checks_registered()
print(json.dumps([check.__name__ for check in rp_fitness._fitness_checks]))
"""


def test_sdk_checks_memory_disk_and_network_only() -> None:
    names = in_fresh_python(CHECKS, RUNPOD_SKIP_AUTO_SYSTEM_CHECKS="")
    assert len(names) == 3
    assert not [name for name in names if "cuda" in name or "gpu" in name or "benchmark" in name]


def test_switch_brings_sdk_checks_back() -> None:
    names = in_fresh_python(
        CHECKS, RUNPOD_SKIP_AUTO_SYSTEM_CHECKS="", RUNPOD_SKIP_GPU_CHECK="false"
    )
    assert len(names) > 3


def test_comfyui_starts_before_heavy_imports() -> None:
    code = """
import json, sys
import handler
heavy = ("runpod", "torch", "numpy", "boto3", "PIL", "aiohttp", "comfy_worker.runner")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    assert in_fresh_python(code) == []
