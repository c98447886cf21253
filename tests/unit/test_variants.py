"""Variants and comments in texts are resolved in one walk over the text."""

from __future__ import annotations

import random
import time

import pytest

from comfy_worker.errors import InvalidWorkflow
from comfy_worker.workflow.convert.to_api import resolve_variants
from comfy_worker.workflow.convert.variants import MAX_VARIANT_TEXT, choose_variants
from comfy_worker.workflow.graph import Input


def chosen(text: str) -> str:
    return choose_variants(text, random.Random(0))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a /* b */ c", "a  c"),
        ("a /* b", "a /* b"),
        ("a // b\nc", "a \nc"),
        ("a // b /* c\nd */ e", "a \nd */ e"),
        ("a /* // */ b", "a  b"),
        ("/*/ a */b", "b"),
        ("/* a // b\nc", "/* a \nc"),
        ("a // b\u2028c", "a \u2028c"),
        ("http://host", "http:"),
        ("{a}", "a"),
        ("{{{a}}}", "a"),
        ("{a", "a"),
        ("a|b}", "a|b}"),
        (r"\{a\|b\}", "{a|b}"),
        ("{}", ""),
        ("", ""),
    ],
)
def test_texts_become_what_the_frontend_makes_of_them(text: str, result: str) -> None:
    assert chosen(text) == result


def test_nested_choices_are_all_possible() -> None:
    text = "{a|{b|c}{d|e}}"
    results = {choose_variants(text, random.Random(seed)) for seed in range(200)}
    assert results == {"a", "bd", "be", "cd", "ce"}


@pytest.mark.parametrize(
    "text",
    ["/* ", "/*/", "//", "a|", "{a|", "}", "\\", "{a|b}", "/", "*/"],
)
def test_the_longest_texts_are_resolved_soon(text: str) -> None:
    long = text * (MAX_VARIANT_TEXT // len(text))
    began = time.process_time()
    chosen(long)
    chosen("{" + long + "}")
    assert time.process_time() - began < 15


def test_a_long_choice_is_shared_by_the_blocks() -> None:
    began = time.process_time()
    assert chosen("{" * (MAX_VARIANT_TEXT // 2) + "x" * (MAX_VARIANT_TEXT // 2)).startswith("xxx")
    assert time.process_time() - began < 15


def test_longer_texts_are_refused_by_their_length() -> None:
    def workflow(text: str) -> dict[str, dict[str, object]]:
        return {"2": {"class_type": "CLIPTextEncode", "inputs": {"text": text}}}

    with pytest.raises(
        InvalidWorkflow, match=r"the text in text of node 2 has 999,999 characters"
    ) as caught:
        resolve_variants(workflow("/* " * 333_333), [Input("2", "text")], seed=0)
    assert len(str(caught.value.to_result())) < 500
    plain = workflow("a|b " * 250_000)
    resolve_variants(plain, [Input("2", "text")], seed=0)
    assert plain == workflow("a|b " * 250_000)
