"""Finds the inputs of a node that take the prompt, by their names, declarations and neighbours."""

from __future__ import annotations

import re

from comfy_worker.workflow.graph import Input
from comfy_worker.workflow.typed_workflow import MEDIA_TYPES, TypedWorkflow

__all__ = ["PROMPT_NAME", "is_enhancer", "is_writer", "of_side", "polarity", "text_inputs"]

# Input names for the prompt itself, and names for texts beside it (a system prompt, a search
# pattern).
PROMPT_NAME = re.compile(
    r"(^|_)(prompt|text|caption|tag)s?(\d|_|$)|^(positive|negative)$", re.IGNORECASE
)
OTHER_NAME = re.compile(
    r"system|find|replace|pattern|delimiter|separator|exclude|tidy|whitespace|mode"
    r"|(^|_)(path|file|filename)(_|$)",
    re.IGNORECASE,
)

# What a find-and-replace node looks for if the prompt replaces it: `{prompt}`, `USER_INPUT`, but
# neither `{width}` nor `SYSTEM_PROMPT`.
PROMPT_SLOT = re.compile(r"prompt|user|input|query|idea|caption|text", re.IGNORECASE)
FORMAT_FIELD = re.compile(r"\{[a-z]\}")

# ComfyUI's own language models. Their text is the prompt, except a question about a picture.
ENHANCERS = re.compile(r"^TextGenerate")
QUESTION = re.compile(
    r"\s*(please )?(describe|caption|transcribe|list|analy[sz]e|what|which|tag)\b", re.IGNORECASE
)

# A node that writes a text of its own. It is known by a linked picture, by inputs that only a
# language model has, or by the name of its class.
MODEL_SETTINGS = frozenset(
    {
        "temperature",
        "max_tokens",
        "max_new_tokens",
        "max_output_tokens",
        "num_predict",
        "top_p",
        "top_k",
        "num_beams",
    }
)
WRITERS = re.compile(
    r"llm|gpt|ollama|gemini|claude|openai|anthropic|llava|mistral|deepseek|groq"
    r"|caption(er|ing)|interrogat|tagger|florence|blip|moondream|minicpm|vlm|qwen.*vl",
    re.IGNORECASE,
)


def polarity(name: str) -> str | None:
    """Whether a name says ``positive`` or ``negative``; None if it says neither."""
    found = re.search(r"pos(?=itive|_|$)|neg(?=ative|_|$)", name.lower())
    if found is None:
        return None
    return "positive" if found.group() == "pos" else "negative"


def of_side(node_inputs: list[Input], side: str) -> list[Input]:
    """Return the inputs whose name says this side.

    If there are none, return the inputs whose name says no side.
    """
    by_side: dict[str | None, list[Input]] = {side: [], None: []}
    for node_input in node_inputs:
        by_side.setdefault(polarity(node_input.name), []).append(node_input)
    return by_side[side] or by_side[None]


def text_inputs(graph: TypedWorkflow, node_id: str, side: str) -> list[Input]:
    """Return the inputs of a node that take the prompt of a side.

    It looks at the polarity, then at the declaration, then at the name.

    A node that reads a picture and outputs a text (a tagger) has no such input: it computes its
    text.
    """
    is_text_tool = graph.gives_only(node_id, "STRING")
    if is_text_tool and graph.linked(node_id, "IMAGE") and not is_enhancer(graph, node_id):
        return []
    inputs = graph.workflow[node_id]["inputs"]
    branch = graph.branch(node_id)
    if branch is not None:
        return [branch]
    if {"string", "find", "replace"} <= inputs.keys():
        return [Input(node_id, "replace" if _is_prompt_slot(graph, node_id) else "string")]
    if "f_string" in inputs:
        return _formatted(graph, node_id)
    strings = [
        node_input
        for node_input in graph.widgets(node_id)
        if graph.type_of(node_input) == "STRING" and not OTHER_NAME.search(node_input.name)
    ]
    strings = of_side(strings, side)
    strings = [node_input for node_input in strings if _is_long(graph, node_input)] or strings
    return [node_input for node_input in strings if PROMPT_NAME.search(node_input.name)] or strings


def is_enhancer(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node is a language model that rewrites the prompt."""
    if not ENHANCERS.search(graph.class_type(node_id)):
        return False
    text = graph.values(Input(node_id, "prompt"))
    is_question = isinstance(text, str) and QUESTION.match(text) is not None
    return not (is_question and graph.typed(node_id, *MEDIA_TYPES))


def is_writer(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a node writes a new text: a tagger, a captioner, a language model."""
    if is_enhancer(graph, node_id):
        return False
    if graph.typed(node_id, *MEDIA_TYPES):
        return True
    declared = graph.declared(node_id)
    if declared is not None and declared.is_api:
        return True
    if not MODEL_SETTINGS.isdisjoint(graph.workflow[node_id]["inputs"]):
        return True
    return WRITERS.search(graph.class_type(node_id)) is not None


def _is_prompt_slot(graph: TypedWorkflow, node_id: str) -> bool:
    """Whether a find-and-replace node looks for a placeholder such as ``{prompt}``."""
    find = graph.values(Input(node_id, "find"))
    if not isinstance(find, str) or OTHER_NAME.search(find):
        return False
    return PROMPT_SLOT.search(find) is not None


def _formatted(graph: TypedWorkflow, node_id: str) -> list[Input]:
    """Return the texts that a pattern such as ``{a}, sharp`` inserts, else the pattern."""
    pattern = Input(node_id, "f_string")
    texts = [
        node_input
        for node_input in graph.inputs(node_id)
        if node_input != pattern and graph.type_of(node_input) == "STRING"
    ]
    has_fields = FORMAT_FIELD.search(str(graph.values(pattern))) is not None
    return texts if texts and has_fields else [pattern]


def _is_long(graph: TypedWorkflow, node_input: Input) -> bool:
    """Whether an input takes a long text: it is linked, or the editor shows several lines."""
    if graph.link(node_input):
        return True
    spec = graph.spec(node_input)
    if spec is None:
        return False
    return bool(spec.options.get("multiline") or spec.options.get("dynamicPrompts"))
