"""The pictures that a client's graph names become the stored ones."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_worker.errors import InvalidMedia
from comfy_worker.inputs.files import InputFiles
from comfy_worker.planning.input_files import take_inline_files, take_named_images
from comfy_worker.request.schema import JobInput
from comfy_worker.settings import Settings
from comfy_worker.workflow.edit.input_files import rename_input_files
from comfy_worker.workflow.node_defs import NodeDefs
from tests import clips

DEFS = NodeDefs(
    {
        "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}},
        "LoadVideo": {"input": {"required": {"file": [["a.mp4"], {"video_upload": True}]}}},
        "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {}], "clip": ["CLIP"]}}},
    }
)


def test_only_file_inputs_get_the_stored_name() -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "fox.png [input]"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "fox.png", "clip": ["1", 0]}},
        "5": {"class_type": "SomebodysLoader", "inputs": {"file": "fox.png"}},
    }
    changed, used = rename_input_files(
        graph, DEFS, {"fox.png": "job/images_0.png", "lost.png": "job/images_1.png"}
    )
    values = [next(iter(node["inputs"].values())) for node in changed.values()]
    assert values == [
        "job/images_0.png",
        "job/images_0.png",
        "other.png",
        "fox.png",
        "job/images_0.png",
    ]
    assert used == {"fox.png"}
    assert graph["1"]["inputs"] == {"image": "fox.png"}


def file_node(class_type: str, name: str, value: str) -> dict[str, Any]:
    return {"1": {"class_type": class_type, "inputs": {name: value}}}


def test_only_video_inputs_take_videos(tmp_path: Path) -> None:
    video = base64.b64encode(clips.video()).decode()
    uri = f"data:video/mp4;base64,{video}"
    request = JobInput.read({"images": [{"name": "a.mp4", "image": video}]})
    roles: Any = SimpleNamespace(outputs=["1"])

    def files() -> InputFiles:
        return InputFiles(tmp_path / "job", Settings().input_limits)

    with pytest.raises(InvalidMedia, match=r"images\.0\.image cannot be decoded"):
        take_named_images(files(), request, file_node("LoadImage", "image", "a.mp4"), DEFS)
    with pytest.raises(InvalidMedia, match=r"node 1\.image cannot be decoded"):
        take_inline_files(files(), file_node("LoadImage", "image", uri), DEFS, roles)
    graph, _ = take_named_images(files(), request, file_node("LoadVideo", "file", "a.mp4"), DEFS)
    assert graph["1"]["inputs"]["file"].endswith(".mp4")
    graph = take_inline_files(files(), file_node("LoadVideo", "file", uri), DEFS, roles)
    assert graph["1"]["inputs"]["file"].endswith(".mp4")
