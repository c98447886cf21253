"""Two templates in turn: the models of each stay loaded while the other one runs."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.comfyui.events import Event, Executing
from comfy_worker.deadline import Deadline
from tests.comfyui.conftest import RealComfyUI
from tests.graphs import txt2img
from tests.placeholders import CHECKPOINT_INPAINT

pytestmark = pytest.mark.comfyui


def nodes_run(comfyui: RealComfyUI, workflow: dict[str, Any]) -> set[str]:
    """Run a workflow; the nodes that were not taken from the cache."""
    nodes: set[str] = set()

    def follow(event: Event | None) -> None:
        if isinstance(event, Executing):
            nodes.add(event.node_id)

    comfyui.running.execute(workflow, Deadline(), on_event=follow)
    return nodes


def test_a_second_template_keeps_the_first_ones_models(comfyui: RealComfyUI) -> None:
    other = {"loader": {"ckpt_name": CHECKPOINT_INPAINT}}
    comfyui.running.free()
    assert "loader" in nodes_run(comfyui, txt2img("cache", 31))
    assert "loader" in nodes_run(comfyui, txt2img("cache", 32, **other))
    again = nodes_run(comfyui, txt2img("cache", 33))
    assert "loader" not in again
    assert "sampler" in again, "another seed: it ran"
    assert "loader" not in nodes_run(comfyui, txt2img("cache", 34, **other))
