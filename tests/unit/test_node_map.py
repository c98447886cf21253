"""The map of node classes: how it is made of Manager's lists, and how the worker reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_common import node_map
from comfy_common.node_map import NodeMap, installed_map, made_from_manager
from comfy_worker.workflow.check.preflight import check, refusal
from comfy_worker.workflow.model_files import CheckContext
from tests.core_nodes import DEFS
from tests.graphs import node

KJ = "https://github.com/kijai/ComfyUI-KJNodes"
FORK = "https://github.com/fork/KJ"
RGTHREE = "https://github.com/rgthree/rgthree-comfy"
CLASSES: dict[str, Any] = {
    FORK: [["ImageResizeKJv2", "Own", "Own"], {}],
    KJ: [["ImageResizeKJv2"], {"title_aux": "KJNodes"}],
    RGTHREE: [[], {"nodename_pattern": r" \(rgthree\)$"}],
    "https://github.com/o/ttn": [[], {"nodename_pattern": "^ttN "}],
    "https://github.com/o/general": [["x"], {"nodename_pattern": "Hunyuan"}],
    "https://github.com/o/slow": [[], {"nodename_pattern": "(a+)+$"}],
    "https://github.com/o/short": [[], {"nodename_pattern": "^JW"}],
    "https://github.com/o/one": [[], {"nodename_pattern": "Inspire$"}],
    "https://github.com/o/two": [[], {"nodename_pattern": "Inspire$"}],
    "https://github.com/comfyanonymous/ComfyUI": [["NewCoreNode"], {}],
    "https://github.com/o/ComfyUI-copy": [["NewCoreNode"], {}],
    "https://github.com/o/odd": "nonsense",
}
PACKS = {
    "custom_nodes": [
        {"id": "kjnodes", "reference": f"{KJ}.git/"},
        {"id": "rgthree", "reference": RGTHREE},
        "nonsense",
        {"id": 3},
        {"id": "two", "reference": "https://github.com/o/two"},
        {"id": "fork", "reference": FORK},
    ]
}


def test_a_pack_comes_before_its_copies() -> None:
    made = made_from_manager(CLASSES, PACKS)
    assert made.packs_of("ImageResizeKJv2") == [KJ, FORK]
    assert made.packs_of("Own") == [FORK]
    assert made.packs_of("NewCoreNode") == ["comfy-core"]


def test_only_literal_patterns_count() -> None:
    made = made_from_manager(CLASSES, PACKS)
    assert made.packs_of("Any Switch (rgthree)") == [RGTHREE]
    assert made.packs_of("ttN concat") == ["https://github.com/o/ttn"]
    assert made.packs_of("Lora Inspire") == ["https://github.com/o/two", "https://github.com/o/one"]
    for class_type in ("HunyuanVideo", "aaaa", "JWImage", "unknown", ""):
        assert made.packs_of(class_type) == []


@pytest.mark.parametrize(("classes", "packs"), [([], {}), ({}, PACKS), (CLASSES, []), (1, PACKS)])
def test_lists_of_another_form_are_refused(classes: Any, packs: Any) -> None:
    with pytest.raises(ValueError, match="has another form"):
        made_from_manager(classes, packs)


def test_the_map_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    assert installed_map(file) == NodeMap()
    made = made_from_manager(CLASSES, PACKS)
    file.write_text(json.dumps(made.as_json()), encoding="utf-8")
    assert installed_map(file) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"packs": [], "classes": {"a": 1}, "beginnings": {}, "endings": {}}',
        '{"packs": [], "classes": {"a": [0]}, "beginnings": {}, "endings": {}}',
        '{"packs": [], "classes": {"a": [{}]}, "beginnings": {}, "endings": {}}',
        '{"packs": [], "classes": {}, "beginnings": [], "endings": {}}',
    ],
)
def test_a_broken_map_is_an_empty_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "map.json"
    file.write_text(text, encoding="utf-8")
    assert installed_map(file) == NodeMap()


@pytest.mark.parametrize(
    ("class_type", "packs", "would_do"),
    [
        ("ImageResizeKJv2", {}, f"install the node pack {KJ} or {FORK}"),
        ("ImageResizeKJv2", {"ImageResizeKJv2": "own"}, "install the node pack own"),
        ("NewCoreNode", {}, "use a version of ComfyUI that has it"),
        ("NobodyHasIt", {}, "install the node pack that brings it"),
    ],
)
def test_a_missing_class_names_its_pack(
    class_type: str, packs: dict[str, str], would_do: str
) -> None:
    made = made_from_manager(CLASSES, PACKS)
    context = CheckContext(packs=packs, find_packs=made.packs_of)
    checked = check({"1": node(class_type)}, DEFS, context)
    error = refusal(checked.findings)
    assert error.code == "NODE_NOT_INSTALLED"
    assert would_do in str(error)


def test_a_job_reads_this_machines_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "map.json"
    file.write_text(json.dumps(made_from_manager(CLASSES, PACKS).as_json()), encoding="utf-8")
    monkeypatch.setattr(node_map, "NODE_MAP", file)
    assert node_map.packs_of("Any Switch (rgthree)") == [RGTHREE]
