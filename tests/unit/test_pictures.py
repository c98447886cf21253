"""The pictures that a client's graph names become the stored ones."""

from __future__ import annotations

from comfy_worker.workflow.edit.input_files import name_stored
from comfy_worker.workflow.node_defs import NodeDefs

DEFS = NodeDefs(
    {
        "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}},
        "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {}], "clip": ["CLIP"]}}},
    }
)


def test_a_node_that_names_the_file_gets_the_stored_one_and_a_text_stays() -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "fox.png [input]"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "fox.png", "clip": ["1", 0]}},
        "5": {"class_type": "SomebodysLoader", "inputs": {"file": "fox.png"}},
    }
    changed, used = name_stored(
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
