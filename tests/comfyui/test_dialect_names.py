"""The names that dialects are translated to are ones that the real ComfyUI has."""

from __future__ import annotations

import pytest

from comfy_worker.request import dialect_names as words
from comfy_worker.request.dialects import translate
from tests.comfyui.conftest import RealComfyUI

pytestmark = pytest.mark.comfyui


def choices(comfyui: RealComfyUI, name: str) -> set[str]:
    return {*(comfyui.defs["KSampler"].inputs[name].choices or ())}


def test_comfyui_has_every_listed_sampler_and_scheduler(comfyui: RealComfyUI) -> None:
    assert {row.sampler for row in words.SAMPLERS} <= choices(comfyui, "sampler_name")
    schedulers = {row.scheduler for row in words.SAMPLERS} | {*words.SCHEDULERS.values()} - {""}
    assert schedulers <= choices(comfyui, "scheduler")


def test_comfyui_has_every_upscale_method_of_the_tables(comfyui: RealComfyUI) -> None:
    methods = comfyui.defs["LatentUpscaleBy"].inputs["upscale_method"].choices or ()
    assert {*words.UPSCALERS.values()} <= {*methods}


def test_comfyuis_own_names_stay(comfyui: RealComfyUI) -> None:
    for name in choices(comfyui, "scheduler"):
        assert translate({"scheduler": name}).input == {"scheduler": name}
    for name in choices(comfyui, "sampler_name"):
        assert translate({"sampler": name}).input == {"sampler": name}
        assert translate({"sampler_name": name}).input["sampler"] == name
