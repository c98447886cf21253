"""A job's whole way: client, endpoint, the SDK's loop, the handler, ComfyUI, and back."""

from __future__ import annotations

import time
from typing import Any

import pytest
from PIL import Image

from tests import placeholders
from tests.e2e.conftest import Client, comfyuis, left_behind, pictures
from tests.graphs import node, txt2img
from tests.pictures import encoded

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

SMALL = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 2}


def test_a_template_makes_the_requested_size(any_worker: Client) -> None:
    result = any_worker.output({"workflow": "txt2img", **SMALL, "width": 128, "seed": 5})
    (picture,) = pictures(result)
    assert (picture.format, picture.size) == ("PNG", (128, 64))
    (image,) = result["images"]
    assert (image["width"], image["height"], image["mime_type"], image["seed"]) == (
        128,
        64,
        "image/png",
        5,
    )
    assert result["workflow"] == "txt2img"
    assert SMALL.items() <= {**result["parameters"], "width": 64}.items()
    assert result["timings"]["stages"]["execute"] > 0
    assert result["timings"]["nodes"]


def test_the_seed_alone_decides_the_pixels(any_worker: Client) -> None:
    first, again, other = (
        pictures(any_worker.output({**SMALL, "seed": seed}))[0].tobytes() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_another_prompt_gives_other_pixels(worker: Client) -> None:
    first, other = (
        pictures(worker.output({**SMALL, "seed": 1, "prompt": prompt}))[0].tobytes()
        for prompt in ("a fox", "a harbour")
    )
    assert first != other


@pytest.mark.parametrize("changes", [{}, {"seed": -1}])
def test_the_reported_random_seed_reproduces_the_picture(
    worker: Client, changes: dict[str, int]
) -> None:
    first, other = worker.output({**SMALL, **changes}), worker.output({**SMALL, **changes})
    assert first["seed"] != other["seed"]
    assert 0 <= first["seed"] < 2**53
    again = worker.output({**SMALL, "seed": first["seed"]})
    assert pictures(again)[0].tobytes() == pictures(first)[0].tobytes()


def test_every_parameter_is_filled_by_role(any_worker: Client) -> None:
    job_input = {
        **SMALL,
        "negative_prompt": "fog",
        "cfg": 3.5,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "batch_size": 2,
        "checkpoint": placeholders.CHECKPOINT,
        "seed": 3,
    }
    result = any_worker.output(job_input)
    assert job_input.items() <= result["parameters"].items()
    assert len(pictures(result)) == 2


def test_run_and_status_tell_times(worker: Client) -> None:
    job = worker.post("run", {"input": SMALL})
    assert job["status"] == "IN_QUEUE"
    deadline = time.monotonic() + 120
    while (status := worker.get(f"status/{job['id']}"))["status"] in ("IN_QUEUE", "IN_PROGRESS"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert status["status"] == "COMPLETED"
    assert status["executionTime"] > 0
    assert status["delayTime"] >= 0
    assert pictures(status["output"])[0].size == (64, 64)


def wait_for(worker: Client, job_id: str, wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (status := worker.get(f"status/{job_id}"))["status"] != wanted:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def test_a_cancelled_job_ends_within_two_seconds(worker: Client) -> None:
    job_id = worker.post("run", {"input": {**SMALL, "steps": 10000}})["id"]
    wait_for(worker, job_id, "IN_PROGRESS")
    time.sleep(1.5)
    worker.post(f"cancel/{job_id}")
    began = time.monotonic()
    assert pictures(worker.output(SMALL))
    assert time.monotonic() - began < 60, "the GPU was held by the cancelled job"
    assert worker.get(f"status/{job_id}")["status"] == "CANCELLED"


def test_a_second_job_is_prepared_while_one_runs(worker: Client) -> None:
    ids = [
        worker.post("run", {"input": {**SMALL, "seed": seed, "steps": 6}})["id"]
        for seed in range(4)
    ]
    results = [wait_for(worker, job_id, "COMPLETED")["output"] for job_id in ids]
    assert [result["seed"] for result in results] == [0, 1, 2, 3]
    assert len({result["images"][0]["data"] for result in results}) == 4


def test_custom_graphs_are_filled_like_templates(any_worker: Client) -> None:
    custom = any_worker.output({"workflow": txt2img(seed=1), "prompt": "a fox", "seed": 9})
    by_hand = any_worker.output({"workflow": txt2img(prompt="a fox"), "seed": 9})
    assert custom["workflow"] == "custom"
    assert pictures(custom)[0].tobytes() == pictures(by_hand)[0].tobytes()


def test_a_missing_checkpoint_gets_a_stand_in(worker: Client) -> None:
    assert worker.output(SMALL)["parameters"]["checkpoint"] == placeholders.CHECKPOINT


@pytest.mark.parametrize(
    ("job_input", "error"),
    [
        (
            {"workflow": "txt2imgg"},
            "UNKNOWN_WORKFLOW: no workflow is named 'txt2imgg'; did you mean txt2img",
        ),
        ({"steps": "many"}, 'INVALID_INPUT: steps must be a whole number, not "many"'),
        ({"width": 7}, "INVALID_VALUE: width"),
        ({"width": 70}, "INVALID_VALUE: width"),
        ({"sampler": "eulerr"}, "INVALID_VALUE: sampler"),
        ({"sead": 1}, "UNKNOWN_KEY: sead is not a key of the input; did you mean seed?"),
        ({"length": 9}, "NO_PLACE: this workflow has no input for length"),
        ({"checkpoint": "nope"}, "MODEL_NOT_FOUND: checkpoint 'nope' is not installed"),
        ({"workflow": "img2img", "image": "no base64!"}, "INVALID_MEDIA: image must be base64"),
        ({"workflow": "img2img"}, "INVALID_INPUT: workflow 'img2img' needs image"),
        (
            {"workflow": {"1": {"inputs": {}}}},
            "INVALID_WORKFLOW: workflow is not in API format",
        ),
        ("a lighthouse", "INVALID_INPUT: input must be an object"),
    ],
)
def test_a_mistake_is_one_coded_sentence(worker: Client, job_input: Any, error: str) -> None:
    job = worker.runsync(job_input)
    assert job["status"] == "FAILED"
    assert job["error"].startswith(error)
    assert worker.get("health")["workers"]["ready"] >= 1


def test_a_job_that_fails_half_way_leaves_nothing(worker: Client) -> None:
    graph = {
        "load": node(
            "LoadImage", image="data:image/png;base64," + encoded(Image.new("RGB", (64, 64)))
        ),
        "preview": node("PreviewImage", images=["load", 0]),
        "replace": node("RegexReplace", string="a", regex_pattern="(", replace="b"),
        "show": node("PreviewAny", source=["replace", 0]),
    }
    job = worker.runsync({"workflow": graph})
    assert job["error"].startswith("EXECUTION_FAILED: node replace (RegexReplace) failed with"), job


def test_what_stays_would_be_seen(worker: Client) -> None:
    (folders,) = (
        found for found in comfyuis().values() if found[0].is_relative_to(worker.temp_dir)
    )
    for folder in folders:
        file = folder / "left.png"
        file.touch()
        assert left_behind() == [str(file)]
        file.unlink()
