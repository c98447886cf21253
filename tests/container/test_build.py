"""The container: the real Dockerfile is built, and makes a picture."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.tools import require

pytestmark = pytest.mark.container


def test_the_container_is_built_and_makes_a_picture() -> None:
    require("buildah", "debootstrap", "git")
    if os.getuid():
        pytest.skip("buildah and debootstrap need root here")
    built = subprocess.run(
        [Path(__file__).with_name("build.sh")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(built.stdout)  # noqa: T201
    assert built.returncode == 0, built.stdout[-4000:]
    assert built.stdout.endswith("== all is well\n")
