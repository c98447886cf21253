"""A graph is found under the words of other programs, and told apart from what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_worker.errors import InputError, InvalidInput, UnknownKey
from comfy_worker.request.dialects import KNOWN_WORDS, translate
from comfy_worker.request.graph_wrappers import secrets_within
from comfy_worker.request.schema import JobInput

GRAPH = {
    "1": {"class_type": "KSampler", "inputs": {}},
    "2": {"class_type": "SaveImage", "inputs": {}},
}
FILE = {"nodes": [{"id": 1, "type": "KSampler"}], "links": []}
TEXT = json.dumps(GRAPH)


def read(value: Any) -> JobInput:
    request = translate(value)
    return JobInput.read(request.input, request.client_words, KNOWN_WORDS)


@pytest.mark.parametrize(
    "value",
    [
        {"workflow": GRAPH},
        {"workflow": TEXT},
        {"workflow": "\ufeff" + TEXT},
        {"workflow": " \n" + json.dumps(TEXT)},
        {"workflow": json.dumps("\ufeff" + json.dumps(TEXT))},
        {
            "workflow": {
                "prompt": GRAPH,
                "client_id": "abc",
                "extra_data": {"extra_pnginfo": {"workflow": FILE}},
            }
        },
        {"workflow": {"prompt": TEXT}},
        {"workflow": json.dumps({"prompt": GRAPH})},
        {"workflow": {"workflow": GRAPH}},
        {"workflow": {"output": GRAPH, "workflow": FILE}},
        {"workflow": {"input": {"workflow": GRAPH}}},
        {"prompt": GRAPH},
        {"prompt": TEXT},
        {"prompt": GRAPH, "client_id": "abc", "number": 1, "front": True, "extra_data": {}},
        {"prompt": {"prompt": GRAPH}},
        {"workflow": "custom", "payload": GRAPH},
        {"payload": TEXT},
        {"payload": {"prompt": GRAPH, "client_id": "abc"}},
        {"workflow_api": GRAPH, "workflow": None},
        GRAPH,
        json.dumps({"workflow": GRAPH}),
        "\ufeff" + json.dumps(json.dumps({"prompt": GRAPH})),
        {"input": {"workflow": GRAPH}},
        {"input": json.dumps({"workflow": GRAPH})},
    ],
)
def test_a_graph_is_found(value: Any) -> None:
    assert read(value) == JobInput.read({"workflow": GRAPH})


def test_a_file_of_the_editor_is_found() -> None:
    for value in (
        FILE,
        {"prompt": FILE},
        {"workflow": {"workflow": FILE}},
        {"payload": json.dumps(FILE)},
    ):
        assert read(value).workflow == FILE


def test_what_stands_beside_a_graph_is_kept() -> None:
    read_input = read({"prompt": GRAPH, "seed": 5, "steps": 3})
    assert (read_input.workflow, read_input.prompt, read_input.seed, read_input.steps) == (
        GRAPH,
        None,
        5,
        3,
    )


@pytest.mark.parametrize(
    "prompt", ["{a|b} cat", '"a cat"', "{", '{"a": 1}', "[1]", "a cat", '{"1": {"a": 2}}']
)
def test_a_prompt_with_braces_stays_a_prompt(prompt: str) -> None:
    assert read({"prompt": prompt}).prompt == prompt


def test_a_node_named_like_a_wrapper_works() -> None:
    graph = {
        "prompt": {"class_type": "KSampler", "inputs": {}},
        "input": {"class_type": "A", "inputs": {}},
    }
    assert read({"workflow": graph}).workflow == graph
    assert read(graph).workflow == graph


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (
            {"workflow": GRAPH, "prompt": GRAPH},
            InvalidInput,
            "prompt and workflow both say which workflow to run",
        ),
        ({"workflow": "txt2img", "payload": GRAPH}, InvalidInput, "payload and workflow both say"),
        ({"payload": GRAPH, "prompt": TEXT}, InvalidInput, "prompt and payload both say"),
        (
            {"payload": {"steps": 3}},
            UnknownKey,
            "payload is not a key of the input: send a graph as workflow",
        ),
        ({"prompt": {"a": 1}}, InvalidInput, "prompt must be text"),
        (
            {"workflow": json.dumps("txt2img" * 99)[:-1]},
            InvalidInput,
            "workflow must be a template's name or a graph",
        ),
    ],
)
def test_what_is_no_graph_is_told_so(value: Any, error: type[InputError], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read(value)
    assert isinstance(caught.value, error)
    assert sentence in str(caught.value)


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HALF = "x\ud800"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({HALF: 1}, "a key of the input holds half of a surrogate pair"),
        ({"prompt": HALF}, "prompt holds half of a surrogate pair"),
        ({"workflow": HALF}, "workflow holds half"),
        ({"workflow": {"1": {"class_type": HALF, "inputs": {}}}}, "workflow holds half"),
        (
            {"workflow": '{"1": {"class_type": "A", "inputs": {"a": "\\ud800"}}}'},
            "workflow holds half",
        ),
        ({"workflow": '{"\\ud800": 1}'}, "workflow holds half"),
        ({"overrides": {HALF: 1}}, "overrides holds half"),
        ({"overrides": {"1.a": [{"b": HALF}]}}, "overrides holds half"),
        ({"images": [{"name": HALF, "image": "AAAA"}]}, "images holds half"),
        ({"api_name": HALF}, "api_name holds half"),
        ({"comfy_org_api_key": HALF}, "comfy_org_api_key holds half"),
        (
            {"overrides": {"1.source": nest(900)}},
            "overrides holds lists and objects that are nested",
        ),
        ({"parameters": {"a": 10**400}}, "parameters holds a number of more than 300 digits"),
        ({"overrides": {"1.a": float("nan")}}, "overrides holds NaN"),
        (
            {"workflow": {"1": {"class_type": "A", "inputs": {"a": 10**400}}}},
            "workflow holds a number of more",
        ),
        (
            {"workflow": '{"1": {"class_type": "A", "inputs": {"a": ' + "9" * 400 + "}}}"},
            "workflow holds a number",
        ),
        (
            {"workflow": '{"1": ' + "[" * 5000 + "]" * 5000 + "}"},
            "workflow must be a template's name or a graph",
        ),
        (
            {"workflow": '{"1": ' + "9" * 5000 + "}"},
            "workflow must be a template's name or a graph",
        ),
    ],
)
def test_what_cannot_be_handled_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(value)
    assert sentence in str(caught.value)
    json.dumps(caught.value.to_result(), ensure_ascii=False).encode()


def test_numbers_that_nobody_reads_do_no_harm() -> None:
    graph = {"1": {"class_type": "A", "inputs": {}, "is_changed": [float("nan")]}}
    assert set(read({"workflow": graph}).workflow or ()) == {"1"}


@pytest.mark.parametrize(
    "value",
    [
        {"comfy_org_api_key": "k3y"},
        json.dumps({"comfy_org_api_key": "k3y"}),
        {"input": json.dumps({"workflow": GRAPH, "comfy_org_api_key": "k3y"})},
        {"workflow": {"prompt": GRAPH, "extra_data": {"api_key_comfy_org": "k3y"}}},
        {"prompt": GRAPH, "extra_data": {"auth_token_comfy_org": "k3y"}},
    ],
)
def test_keys_are_known_as_secrets_however_wrapped(value: Any) -> None:
    assert secrets_within(value) == ["k3y"]


@pytest.mark.parametrize(
    "value", [None, 3, "{", [], {"input": {"input": {}}}, {"comfy_org_api_key": None}, nest(900)]
)
def test_looking_for_keys_never_fails(value: Any) -> None:
    assert secrets_within(value) == []


def test_ignored_keys_make_at_most_100_warnings() -> None:
    request = translate({"override_settings": {f"word {number}": 1 for number in range(100_000)}})
    assert len(request.warnings) == 101
    assert request.warnings[-1] == "99,900 more words are ignored"


@pytest.mark.parametrize("as_list", [False, True])
def test_references_to_assets_are_refused(as_list: bool) -> None:
    reference: Any = {"__type": "core/ASSET", "info": {"id": "9f8a", "file_path": "a.png"}}
    value = [reference] if as_list else reference
    graph = {"4": {"class_type": "LoadImage", "inputs": {"image": value}}}
    with pytest.raises(InvalidInput, match="image of node 4 refers to an asset") as caught:
        JobInput.read(translate({"workflow": json.dumps(graph)}).input)
    assert caught.value.code == "INVALID_INPUT"
