"""The hand-written editor files against ComfyUI's own frontend: what the unit tests hold is what it exports."""

from __future__ import annotations

import json
import os

import pytest

from comfy_common.paths import REPO, comfyui_dir
from tests.editor_files import FILES
from tests.frontend import open_frontend, running_comfyui
from tests.tools import require

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

MADE = json.loads((REPO / "tests" / "unit" / "editor_files.json").read_text(encoding="utf-8"))


def test_the_frontend_exports_what_the_unit_tests_expect() -> None:
    require("chromium")
    with running_comfyui(comfyui_dir(os.environ)) as url, open_frontend(url) as frontend:
        for name, file in FILES.items():
            assert frontend.graph_to_prompt(file) == MADE["exports"][name], name
