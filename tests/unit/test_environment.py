"""The worker's keys stay out of what it starts, and out of what the kernel shows of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from comfy_common.environment import is_secret, loopback_variables, public_variables
from comfy_common.paths import REPO
from comfy_worker.settings import Settings

SECRETS = [
    "HF_TOKEN",
    "CIVITAI_TOKEN",
    "COMFY_ORG_API_KEY",
    "RUNPOD_AI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
]


def test_every_secret_setting_is_known() -> None:
    names = [
        str(field.alias)
        for field in Settings.model_fields.values()
        if "SecretStr" in str(field.annotation)
    ]
    assert "HF_TOKEN" in names
    assert [name for name in names if not is_secret(name)] == []


@pytest.mark.parametrize("name", [*SECRETS, "hf_token", "RUNPOD_POD_ID", "BUCKET_ENDPOINT_URL"])
def test_a_secret_is_not_handed_on(name: str) -> None:
    assert public_variables({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", ["PATH", "HF_HOME", "OPENAI_API_KEY", "CUDA_VISIBLE_DEVICES"])
def test_variables_for_node_packs_are_passed_on(name: str) -> None:
    assert public_variables({name: "x"}) == {name: "x"}


def test_loopback_is_added_to_what_needs_no_proxy() -> None:
    assert (
        loopback_variables({"NO_PROXY": "a.example"})["no_proxy"]
        == "a.example,127.0.0.1,localhost,::1"
    )
    assert loopback_variables({})["NO_PROXY"] == "127.0.0.1,localhost,::1"


HIDE = """
import ctypes, os, subprocess, sys
from comfy_common.environment import hide_own_secrets
hide_own_secrets()
hide_own_secrets()
shown = open(f"/proc/{os.getpid()}/environ", "rb").read()
assert b"PATH=" in shown and b"OTHER=kept" in shown, shown
assert b"quiet-" not in shown, shown
assert b"\\0\\0" not in shown, "readers stop there"
assert [os.environ[name] for name in sys.argv[1:]] == [f"quiet-{name}" for name in sys.argv[1:]]
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
assert getenv(b"HF_TOKEN") == b"quiet-HF_TOKEN"
child = os.fork()
if child == 0:
    os._exit(b"quiet-" in open("/proc/self/environ", "rb").read())
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernel_shows_no_secret() -> None:
    environ = {**os.environ, **{name: f"quiet-{name}" for name in SECRETS}, "OTHER": "kept"}
    subprocess.run([sys.executable, "-c", HIDE, *SECRETS], cwd=REPO, env=environ, check=True)
