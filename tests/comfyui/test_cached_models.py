"""Jobs use models in a cache of Hugging Face where they lie: RunPod's cached models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_worker.comfyui_boot import _launch_options
from comfy_worker.settings import Settings
from tests.base_graphs import base_graph
from tests.comfyui.conftest import RealComfyUI, real_comfyui
from tests.hub_caches import add_repository
from tests.placeholders import CHECKPOINT, LORA, LORA_B, LORA_MODEL_ONLY

pytestmark = pytest.mark.comfyui

# By repository, its files and the placeholders that they are copies of.
REPOSITORIES = {
    "Comfy-Org/split": {"split_files/checkpoints/cached.safetensors": f"checkpoints/{CHECKPOINT}"},
    "Comfy-Org/plain": {"loras/plain.safetensors": f"loras/{LORA}"},
    "owner/flat": {"sub/their-name.safetensors": f"loras/{LORA_B}"},
}
USERS = {"owner/users": {"loras/users.safetensors": f"loras/{LORA_MODEL_ONLY}"}}
NEED = {
    "folder": "loras",
    "file": "our-name.safetensors",
    "url": "https://huggingface.co/owner/flat/resolve/main/sub/their-name.safetensors",
}


@pytest.fixture(scope="module")
def cached(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealComfyUI]:
    """A ComfyUI whose only models are those of a volume's cache, and of the user's."""
    root = tmp_path_factory.mktemp("cached")
    hubs = {
        root / "volume" / "huggingface-cache" / "hub": REPOSITORIES,
        root / "hf" / "hub": USERS,
    }
    for hub, repositories in hubs.items():
        for repo, files in repositories.items():
            copied = {name: model_root / source for name, source in files.items()}
            add_repository(hub, repo, copied)
    workflows = root / "volume" / "workflows"
    workflows.mkdir()
    (workflows / "mine.json").write_text(json.dumps(base_graph("KSampler", "cached.safetensors")))
    (workflows / "mine.params.json").write_text(json.dumps({"needs": [NEED]}))
    environ = {
        "VOLUME_DIR": str(root / "volume"),
        "HF_HOME": str(root / "hf"),
        "MODELS_DIR": str(root / "models"),
        "MODELS_CACHE_DIR": str(root / "cache"),
        "COMFYUI_DIR": str(paths.comfyui_dir(os.environ)),
    }
    with real_comfyui(_launch_options(Settings.from_env(environ))) as started:
        yield started


def test_cached_files_are_found_under_their_names(cached: RealComfyUI) -> None:
    files = cached.defs["LoraLoader"].inputs["lora_name"].choices or ()
    expected = {"plain.safetensors", "our-name.safetensors", "users.safetensors"}
    assert expected <= set(map(str, files))


@pytest.mark.parametrize("lora", ["plain", "our-name", "users"])
def test_a_job_runs_with_cached_models(cached: RealComfyUI, lora: str) -> None:
    graph = base_graph("KSampler", "cached.safetensors")
    (plain,) = cached.images(graph)
    plan = cached.plan(workflow=graph, loras=[{"name": lora}])
    assert plan.findings == ()
    (changed,) = cached.images(plan.workflow)
    assert changed.tobytes() != plain.tobytes()
