"""Saving nodes write into the job's own folder, and nowhere else."""

from __future__ import annotations

import pytest

from comfy_worker.errors import InvalidValue
from comfy_worker.graph.prefix import into_folder


def graph(prefix: object) -> dict[str, dict[str, object]]:
    return {
        "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}},
        "2": {"class_type": "PreviewImage", "inputs": {}},
    }


def test_a_prefix_goes_below_the_folder_and_the_graph_stays() -> None:
    given = graph("set/ComfyUI")
    assert into_folder(given, "job") == graph("job/set/ComfyUI")
    assert given == graph("set/ComfyUI")


def test_a_linked_prefix_stays_linked() -> None:
    assert into_folder(graph(["9", 0]), "job") == graph(["9", 0])


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/etc/x", "..\\x", "\\x"])
def test_a_prefix_that_leaves_the_folder_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidValue, match="filename_prefix of node 1 must stay in the output folder"):
        into_folder(graph(prefix), "job")
