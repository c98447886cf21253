"""Our nodes load in a ComfyUI whose inside is another and say what they go without; a bare one stands in."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from comfy_common.paths import REPO

NODES = REPO / "comfy_worker" / "comfyui" / "custom_nodes" / "comfy_worker_nodes"


@pytest.fixture
def comfyui(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of a ComfyUI that has what every node pack needs, and nothing that only ours looks for."""
    queue = SimpleNamespace(currently_running={})
    server = SimpleNamespace(
        PromptServer=SimpleNamespace(instance=SimpleNamespace(prompt_queue=queue))
    )
    server.PromptServer.instance.routes = web.RouteTableDef()
    inside: dict[str, dict[str, Any]] = {
        "execution": {},
        "latent_preview": {},
        "comfy": {},
        "comfy_execution": {},
        "nodes": {"NODE_CLASS_MAPPINGS": {}},
        "folder_paths": {"models_dir": "/models", "folder_names_and_paths": {}},
        "server": vars(server),
    }
    for name, values in inside.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    return SimpleNamespace(queue=queue, execution=sys.modules["execution"])


@pytest.fixture
def ours(comfyui: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Our node pack, loaded as ComfyUI loads one."""
    where = {"submodule_search_locations": [str(NODES)]}
    spec = importlib.util.spec_from_file_location("ours", NODES / "__init__.py", **where)  # type: ignore[arg-type]
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ours", module)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.startswith("ours.")]:
        del sys.modules[name]


def test_they_load_elsewhere_and_log_missing_features(
    caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    with caplog.at_level(logging.WARNING):
        ours = request.getfixturevalue("ours")
    assert list(ours.NODE_CLASS_MAPPINGS) == ["ComfyWorkerOutput"]
    messages = [record.getMessage() for record in caplog.records]
    assert [text.split(" does not fit this ComfyUI: ")[0] for text in messages] == [
        "comfy_worker_nodes: take_preview_method",
        "comfy_worker_nodes: give_clients_graph",
        "comfy_worker_nodes: keep_prompts_apart",
        "comfy_worker_nodes: guard_paths",
        "comfy_worker_nodes: shorten_cache_keys",
        "comfy_worker_nodes: fail_one_prompt",
    ]
    assert ours.validated_inputs(type("Node", (), {"VALIDATE_INPUTS": lambda ckpt_name: True})) == [
        "ckpt_name"
    ]


def test_an_unexpected_queue_says_nothing_about_the_prompt(
    ours: Any, comfyui: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    extra_data = sys.modules["ours.prompts"].extra_data_of_running_prompt
    comfyui.queue.currently_running = {0: (1, "id", {}, {"word": "x"}, [])}
    assert extra_data("word") == "x"
    comfyui.queue.currently_running = {0: SimpleNamespace(prompt_id="id")}
    assert extra_data("word") is None
    del comfyui.queue.currently_running
    assert extra_data("word") is None
    assert caplog.text.count("does not tell which prompt runs") == 2


def test_prompts_run_with_a_different_node_registry(
    ours: Any,
    comfyui: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class PromptExecutor:
        async def execute_async(self, _prompt: Any, _prompt_id: str) -> str:
            sys.stdout.write("half a line")
            return "done"

    comfyui.execution.PromptExecutor = PromptExecutor
    root = logging.getLogger()
    before = root.filters[:]
    try:
        ours.keep_prompts_apart()
        run = PromptExecutor().execute_async({}, "a")
        with pytest.raises(StopIteration, match="done"):
            run.send(None)
    finally:
        root.filters[:] = before
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "",
        "comfy_worker: prompt a",
        "half a line",
        "comfy_worker: prompt",
    ]
    assert "cannot find ComfyUI's node objects" in caplog.text


class Nothing(dict[str, Any]):
    """An empty group of inputs that holds every name, as some packs have."""

    def __contains__(self, _name: object) -> bool:
        return True


def class_of(run: Any, **groups: Any) -> type:
    """A class of ComfyUI whose function is ``run``."""
    methods = {"FUNCTION": "run", "OUTPUT_NODE": True, "run": run}
    return type("Node", (), {**methods, "INPUT_TYPES": classmethod(lambda _cls: groups)})


UNKNOWN_LINKS = {
    "plain": (class_of(lambda _self, source: source, required={"source": ("*",)}), True),
    "keywords": (class_of(lambda _self, **values: values), False),
    "parameter": (class_of(lambda _self, x0=None: x0), False),
    "hidden": (class_of(lambda _self: None, hidden={"x0": "PROMPT"}), False),
    "any name": (class_of(lambda _self: None, optional=Nothing()), False),
    "growing": (class_of(lambda _self: None, required={"a": ("COMFY_AUTOGROW_V3", {})}), False),
    "no function": (type("Node", (), {"FUNCTION": "run", "OUTPUT_NODE": True}), False),
    "broken": (type("Node", (), {"FUNCTION": "run", "run": print, "OUTPUT_NODE": True}), False),
}


@pytest.mark.parametrize(("node_class", "is_refused"), UNKNOWN_LINKS.values(), ids=UNKNOWN_LINKS)
def test_a_link_that_no_function_takes(
    ours: Any, comfyui: SimpleNamespace, node_class: type, is_refused: bool
) -> None:
    async def validate_prompt(_id: str, prompt: Any, _outputs: Any) -> tuple[Any, ...]:
        return True, None, [node_id for node_id in prompt if node_id == "1"], {}

    comfyui.execution.validate_prompt = validate_prompt
    classes = {"Node": node_class, "Source": type("Source", (), {})}
    sys.modules["nodes"].NODE_CLASS_MAPPINGS.update(classes)  # type: ignore[attr-defined]
    inputs = {"x0": ["2", 0], "x1.a": ["2", 0], "x2": 1, "x3": ["9", 0], "x4": ["2", "a"]}
    workflow = {
        "1": {"class_type": "Node", "inputs": {"source": "a", **inputs}},
        "2": {"class_type": "Source", "inputs": {}},
    }
    answer = asyncio.run(sys.modules["ours.validation"].validate_workflow(workflow))
    errors = answer["node_errors"].get("1", {}).get("errors", [])
    found = [(error["type"], error["extra_info"]["input_name"]) for error in errors]
    assert found == ([("undeclared_input", "x0")] if is_refused else [])
