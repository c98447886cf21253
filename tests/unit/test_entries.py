"""Which of RunPod's entries are jobs."""

from __future__ import annotations

import json
import time

import pytest

from comfy_worker.runpod_worker.entries import MAX_DEPTH, ids_in, parse, read_batch


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_jobs_errors_and_rubbish_are_told_apart() -> None:
    job = {"id": "a", "input": {}}
    rows = [
        None,
        "x",
        5,
        [],
        {},
        {"id": 5, "input": {}},
        {"id": "a\n", "input": {}},
        {"id": "b"},
        job,
    ]
    batch = read_batch(rows, set())
    assert batch.jobs == [job]
    assert list(batch.refused) == ["b"]


@pytest.mark.parametrize("entries", [None, "x", 5, [], {}, [[{"id": "a", "input": {}}]], True])
def test_an_answer_without_jobs_is_an_empty_batch(entries: object) -> None:
    batch = read_batch(entries, set())
    assert (batch.jobs, batch.refused) == ([], {})


def test_a_held_job_is_not_started_again() -> None:
    job = {"id": "a", "input": {}}
    assert read_batch([job], {"a"}).jobs == []
    assert read_batch([job, job], set()).jobs == [job]


@pytest.mark.parametrize(("depth", "count"), [(MAX_DEPTH - 2, 0), (MAX_DEPTH + 1, 1), (900, 1)])
def test_deep_input_is_refused(depth: int, count: int) -> None:
    entry = json.loads(f'{{"id": "a", "input": {nested(depth)}}}')
    assert len(read_batch(entry, set()).refused) == count


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", nested(100_000).encode(), b"1" * 5_000])
def test_what_cannot_be_parsed_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(body)


def test_ids_are_found_in_what_cannot_be_parsed() -> None:
    deep = nested(100_000)
    body = (
        f'[{{"id": "a", "input": {deep}}}, {{"input": {{"id": "evil", "x": "]}}"}}, "id": "b"}}, 5]'
    )
    assert ids_in(body.encode()) == ["a", "b"]


def test_ids_of_one_job_are_found() -> None:
    assert ids_in(b'{"input": {"id": "evil"}, "id":"a"} rubbish') == ["a"]


@pytest.mark.parametrize("body", [b'"' * 300_001, b'{"id":"' + b'\\"A' * 300_000, b"[" * 300_000])
def test_looking_for_ids_takes_linear_time(body: bytes) -> None:
    began = time.process_time()
    assert ids_in(body) == []
    assert time.process_time() - began < 10, "the square would take hours"
