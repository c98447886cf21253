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
    "is_graph",
    "looks_like_json",
    "parse_graph_text",
    "secrets_within",
    "unwrap_graph",
    "unwrap_input",
]

# The words under which other programs have a graph, the one in API format first.
WRAPPERS = ("prompt", "output", "workflow", "input")
# What stands beside the graph in a body for /prompt.
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
# Words that clients have in place of a template's name when they send a graph.
NO_NAMES = (None, "", "custom")
MAX_WRAPPINGS = 4
# Keys for comfy.org: our word, and those of a body for /prompt.
SECRETS = ("comfy_org_api_key", "api_key_comfy_org", "auth_token_comfy_org")
LARGEST_KEY = 10**300


def is_graph(value: Any) -> bool:
    """Whether a value plainly is a graph, in API format or as the editor saves it."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("nodes"), list) and "links" in value:
        return True
    return any(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in value.values())


def unwrap_graph(value: Any) -> Any:
    """The graph in a value that wraps one; any other value as it is."""
    inner = value
    for _ in range(MAX_WRAPPINGS):
        if not isinstance(inner, dict) or is_graph(inner):
            break
        candidates = [_parsed(inner[word]) for word in WRAPPERS if word in inner]
        inner = next((entry for entry in candidates if isinstance(entry, dict)), None)
    return inner if is_graph(inner) else value


def parse_graph_text(text: str) -> Any:
    """What a text holds as JSON, of text within text the innermost.

    Raises:
        ValueError: it is not JSON.
    """
    value: Any = text
    for _ in range(MAX_WRAPPINGS):
        if not isinstance(value, str):
            break
        value = parse_json(value)
    return value


def looks_like_json(text: str) -> bool:
    """Whether a text begins as a JSON object does, or a text that was encoded once more."""
    return text.lstrip("\ufeff \t\r\n").startswith(("{", '"'))


def unwrap_input(value: Any) -> Any:
    """``job["input"]`` with its graph under ``workflow``, where it plainly has one under another word.

    Args:
        value: as it came; text is read as JSON.

    Raises:
        InvalidInput: there are two graphs.
        UnknownKey: a word that other workers have for a graph, and no graph.
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
    found = {word: graph for word in ("prompt", *GRAPH_WORDS) if (graph := _graph_under(value, word)) is not None}
    if not found:
        _refuse_words(value)
        return value
    word, graph = next(iter(found.items()))
    if len(found) > 1 or value.get("workflow") not in NO_NAMES:
        other = next((name for name in found if name != word), "workflow")
        raise InvalidInput(
            f"{word} and {other} both say which workflow to run; send the graph as workflow, and no other",
            [{"key": word, "problem": "there is a second workflow"}],
        )
    left_out = {word, *BESIDE_PROMPT} if word == "prompt" else {word}
    return {
        **{key: entry for key, entry in value.items() if key not in left_out},
        "workflow": graph,
    }


def secrets_within(value: Any) -> list[str]:
    """The keys for comfy.org in ``job["input"]``, however it is wrapped; never raises.

    Args:
        value: as it came.
    """
    found, rest = [], [value]
    for _ in range(MAX_WRAPPINGS):
        inner: list[Any] = []
        for entry in map(_parsed, rest):
            if isinstance(entry, dict):
                found += [entry[word] for word in SECRETS if isinstance(entry.get(word), (str, int))]
                inner += [entry[word] for word in (*WRAPPERS, *GRAPH_WORDS, "extra_data") if word in entry]
        rest = inner
    return [str(key) for key in found if not isinstance(key, int) or abs(key) < LARGEST_KEY]


def _graph_under(value: Mapping[str, Any], word: str) -> Any:
    """The graph under a word; None where there is none."""
    graph = unwrap_graph(_parsed(value.get(word)))
    return graph if is_graph(graph) else None


def _parsed(value: Any) -> Any:
    """JSON in a text that may be a graph; any other value as it is."""
    if isinstance(value, str) and looks_like_json(value):
        try:
            return parse_graph_text(value)
        except ValueError:
            return value
    return value


def _refuse_words(value: Mapping[str, Any]) -> None:
    for word in GRAPH_WORDS:
        if value.get(word) is not None:
            raise UnknownKey(
                f"{word} is not a key of the input: send a graph as workflow, and all other keys "
                "directly under input",
                [{"key": word, "problem": "it is not a key of the input", "nearest": None}],
            )
