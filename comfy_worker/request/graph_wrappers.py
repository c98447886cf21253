"""Finds the graph in a request, whatever other programs call it or wrap around it.

ComfyUI's own ``/prompt`` takes ``{"prompt": graph, "client_id": ...}``; its frontend makes
``{"workflow": file, "output": graph}``; some clients send either as text, or as text within text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_worker.errors import InvalidInput, UnknownKey
from comfy_worker.json_values import parse_json

__all__ = [
    "asset_reference",
    "is_graph",
    "looks_like_json",
    "parse_graph_text",
    "secrets_within",
    "unwrap_graph",
    "unwrap_input",
]

# The words under which other programs send a graph; the one in API format first.
WRAPPERS = ("prompt", "output", "workflow", "input")
# The keys beside the graph in a body for ComfyUI's /prompt.
BESIDE_PROMPT = (
    "client_id",
    "extra_data",
    "front",
    "number",
    "partial_execution_targets",
    "prompt_id",
)
# Further words for a workflow.
GRAPH_WORDS = (
    "payload",
    "graph",
    "workflow_api",
    "workflow_json",
    "comfy_workflow",
    "prompt_workflow",
)
# What clients write as a template's name when they send a graph.
NO_NAMES = (None, "", "custom")
MAX_WRAPPINGS = 4
# The type of references to files in Comfy's API v2.
ASSET_TYPE = "core/ASSET"
# Keys for comfy.org: our word, and those of a body for /prompt.
SECRETS = ("comfy_org_api_key", "api_key_comfy_org", "auth_token_comfy_org")
LARGEST_KEY = 10**300


def is_graph(value: Any) -> bool:
    """Return whether a value clearly is a graph, in API format or in UI format."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("nodes"), list) and "links" in value:
        return True
    return any(_is_node(node) for node in value.values())


def _is_node(value: Any) -> bool:
    """Return whether a value looks like a node in API format."""
    return isinstance(value, dict) and isinstance(value.get("class_type"), str)


def asset_reference(graph: Mapping[str, Any]) -> str | None:
    """Return the first input that refers to a file of Comfy's API v2; None if there is none.

    Such a reference is an object in the place of a file's name. Only the server that the file was
    uploaded to can resolve it.
    """
    for node_id, node in graph.items():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            entries = value if isinstance(value, list) else [value]
            if any(_is_asset(entry) for entry in entries):
                return f"{name} of node {node_id}"
    return None


def _is_asset(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__type") == ASSET_TYPE


def unwrap_graph(value: Any) -> Any:
    """Take the graph out of a value that wraps it; any other value stays as it is."""
    inner = value
    for _ in range(MAX_WRAPPINGS):
        if not isinstance(inner, dict) or is_graph(inner):
            break
        inner = _first_object(inner)
    return inner if is_graph(inner) else value


def _first_object(value: Mapping[str, Any]) -> Any:
    """Return the first object under a word that may hold a graph; None if there is none."""
    for word in WRAPPERS:
        entry = _parsed(value.get(word))
        if isinstance(entry, dict):
            return entry
    return None


def parse_graph_text(text: str) -> Any:
    """Read a text as JSON. If the JSON is a text again, read that too.

    Raises:
        ValueError: the text is not JSON.
    """
    value: Any = text
    for _ in range(MAX_WRAPPINGS):
        if not isinstance(value, str):
            break
        value = parse_json(value)
    return value


def looks_like_json(text: str) -> bool:
    """Return whether a text begins like a JSON object, or like one that was encoded twice."""
    return text.lstrip("\ufeff \t\r\n").startswith(("{", '"'))


def unwrap_input(value: Any) -> Any:
    """Move a graph that has another key than ``workflow`` in ``job["input"]`` to ``workflow``.

    Args:
        value: the input as the client sent it; a text is read as JSON.

    Raises:
        InvalidInput: there are two graphs.
        UnknownKey: a word that other workers use for a graph has no graph.
    """
    if isinstance(value, str) and looks_like_json(value):
        try:
            value = parse_graph_text(value)
        except ValueError:
            return value
    if not isinstance(value, dict):
        return value
    if list(value) == ["input"] and isinstance(value["input"], (dict, str)):
        return unwrap_input(value["input"]) if isinstance(_parsed(value["input"]), dict) else value
    if is_graph(value):
        return {"workflow": value}
    graphs = _graphs_within(value)
    if not graphs:
        _refuse_words(value)
        return value
    word, graph = next(iter(graphs.items()))
    if len(graphs) > 1 or value.get("workflow") not in NO_NAMES:
        other = next((name for name in graphs if name != word), "workflow")
        raise InvalidInput(
            f"{word} and {other} both say which workflow to run; send only one, as workflow",
            [{"key": word, "problem": "there is a second workflow"}],
        )
    left_out = {word, *BESIDE_PROMPT} if word == "prompt" else {word}
    unwrapped = {key: entry for key, entry in value.items() if key not in left_out}
    unwrapped["workflow"] = graph
    return unwrapped


def _graphs_within(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the graphs under other keys than ``workflow``, by key."""
    graphs = {}
    for word in ("prompt", *GRAPH_WORDS):
        graph = unwrap_graph(_parsed(value.get(word)))
        if is_graph(graph):
            graphs[word] = graph
    return graphs


def secrets_within(value: Any) -> list[str]:
    """Return the keys for comfy.org in ``job["input"]``, however they are wrapped. Raises nothing.

    Args:
        value: the input as the client sent it.
    """
    secrets: list[str] = []
    row = [value]
    for _ in range(MAX_WRAPPINGS):
        inner: list[Any] = []
        for entry in map(_parsed, row):
            if isinstance(entry, dict):
                secrets += filter(None, [_as_key(entry.get(word)) for word in SECRETS])
                wrapped = (*WRAPPERS, *GRAPH_WORDS, "extra_data")
                inner += [entry[word] for word in wrapped if word in entry]
        row = inner
    return secrets


def _as_key(value: Any) -> str:
    """Return a key as text; empty for what cannot be one."""
    if isinstance(value, int) and abs(value) < LARGEST_KEY:
        return str(value)
    return value if isinstance(value, str) else ""


def _parsed(value: Any) -> Any:
    """Return the JSON in a text that looks like JSON; any other value as it is."""
    if isinstance(value, str) and looks_like_json(value):
        try:
            return parse_graph_text(value)
        except ValueError:
            return value
    return value


def _refuse_words(value: Mapping[str, Any]) -> None:
    """Reject words for a graph that hold none."""
    for word in GRAPH_WORDS:
        if value.get(word) is not None:
            raise UnknownKey(
                f"{word} is not a key of the input: send a graph as workflow, and all other keys "
                "directly under input",
                [{"key": word, "problem": "it is not a key of the input", "nearest": None}],
            )
