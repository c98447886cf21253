"""What tests of every level share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from comfy_common import paths
from comfy_worker.imaging.processes import image_processes
from tests import placeholders

# A busy machine is no reason to fail: no test asserts a time.
settings.register_profile("comfy", deadline=None)
settings.load_profile("comfy")


@pytest.fixture(scope="session")
def model_root() -> Path:
    """A folder of models with every placeholder in it, made once and kept between runs."""
    root = paths.CACHE / "test-models"
    placeholders.write_all(root)
    return root


@pytest.fixture(scope="session", autouse=True)
def image_processes_end() -> Iterator[None]:
    """End the processes that decoded and encoded images in this one."""
    yield
    image_processes().close()
