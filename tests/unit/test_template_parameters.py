"""What a request says reaches the right inputs of each template, on plans with no ComfyUI running."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import ComfyUITooOld
from tests import pictures, shipped
from tests.template_plans import LORA, plan_of

Expected = dict[str, Any]

# Numbers that no template has by itself.
NUMBERS: dict[str, Any] = {
    "seed": 987654321,
    "steps": 6,
    "cfg": 2.5,
    "width": 768,
    "height": 512,
    "batch_size": 2,
    "fps": 12,
}
# By template, the inputs that get each key of a request. `+` joins several inputs.
PLACES: dict[str, dict[str, str]] = {
    "sdxl": {
        "prompt": "2.text",
        "negative_prompt": "3.text",
        "seed": "5.seed",
        "steps": "5.steps",
        "cfg": "5.cfg",
        "width": "4.width",
        "height": "4.height",
    },
    "z-image-turbo-controlnet": {
        "prompt": "9.text",
        "seed": "12.seed",
        "steps": "12.steps",
        "width": "11.width",
        "height": "11.height",
        "image": "4.image",
    },
    "flux2-dev": {
        "prompt": "4.text",
        "seed": "9.noise_seed",
        "steps": "11.steps",
        "width": "7.value",
        "height": "8.value",
    },
    "flux2-klein-edit": {
        "prompt": "11.text",
        "seed": "18.noise_seed",
        "steps": "20.steps",
        "image": "4.image",
        "image2": "8.image",
    },
    "krea2": {
        "prompt": "4.text",
        "seed": "7.seed",
        "steps": "7.steps",
        "width": "6.width",
        "height": "6.height",
    },
    "anima": {
        "prompt": "13.text",
        "negative_prompt": "14.text",
        "seed": "16.seed",
        "steps": "7.value",
        "cfg": "10.value",
        "width": "15.width",
        "height": "15.height",
    },
    "qwen-image-2512": {
        "prompt": "14.text",
        "negative_prompt": "15.text",
        "seed": "17.seed",
        "steps": "7.value",
        "cfg": "10.value",
        "width": "16.width",
        "height": "16.height",
    },
    "qwen-image-edit-2511": {
        "prompt": "19.prompt",
        "negative_prompt": "20.prompt",
        "seed": "24.seed",
        "steps": "9.value",
        "cfg": "12.value",
        "image": "15.image",
        "image2": "16.image",
        "image3": "17.image",
    },
    "qwen-image-2.1-t2i": {
        "prompt": "5.prompt",
        "negative_prompt": "5.negative_prompt",
        "seed": "7.seed",
        "steps": "7.steps",
        "cfg": "7.cfg",
        "width": "6.width",
        "height": "6.height",
    },
    "qwen-image-2.1-edit": {
        "prompt": "8.prompt",
        "negative_prompt": "8.negative_prompt",
        "seed": "9.seed",
        "steps": "9.steps",
        "cfg": "9.cfg",
        "image": "5.image",
        "image2": "6.image",
        "image3": "7.image",
    },
    "flux3-klein": {
        "prompt": "4.text",
        "negative_prompt": "5.text",
        "seed": "7.seed",
        "steps": "7.steps",
        "cfg": "7.cfg",
        "width": "6.width",
        "height": "6.height",
    },
    "flux3-klein-edit": {
        "prompt": "6.text",
        "seed": "9.seed",
        "steps": "9.steps",
        "image": "4.image",
        "image2": "5.image",
    },
    "minimax-music-3": {
        "prompt": "5.caption",
        "lyrics": "5.lyrics",
        "seed": "4.value",
        "steps": "8.steps",
        "cfg": "8.cfg",
    },
    "wan22-t2v": {
        "prompt": "7.text",
        "negative_prompt": "8.text",
        "seed": "10.noise_seed",
        "steps": "20.value",
        "cfg": "23.value",
        "width": "9.width",
        "height": "9.height",
        "length": "9.length",
        "fps": "13.fps",
    },
    "wan22-i2v": {
        "prompt": "7.text",
        "negative_prompt": "8.text",
        "seed": "11.noise_seed",
        "steps": "21.value",
        "cfg": "24.value",
        "width": "10.width",
        "height": "10.height",
        "length": "10.length",
        "fps": "14.fps",
        "image": "9.image",
    },
    "wan22-flf2v": {
        "prompt": "7.text",
        "negative_prompt": "8.text",
        "seed": "11.noise_seed",
        "steps": "11.steps+12.steps",
        "cfg": "11.cfg+12.cfg",
        "width": "10.width",
        "height": "10.height",
        "length": "10.length",
        "fps": "14.fps",
        "image": "9.image",
        "last_image": "16.image",
    },
    "hunyuan-video-1.5": {
        "prompt": "5.text",
        "negative_prompt": "6.text",
        "seed": "9.noise_seed",
        "steps": "8.steps",
        "cfg": "11.cfg",
        "width": "7.width",
        "height": "7.height",
        "length": "7.length",
        "fps": "14.fps",
    },
    "ltx-2.3-t2v": {
        "prompt": "10.text",
        "negative_prompt": "11.text",
        "seed": "19.noise_seed+28.noise_seed",
        "width": "6.value",
        "height": "7.value",
        "length": "8.value",
        "fps": "9.value",
    },
    "ltx-2.3-i2v": {
        "prompt": "10.text",
        "negative_prompt": "11.text",
        "seed": "23.noise_seed+33.noise_seed",
        "width": "6.value",
        "height": "7.value",
        "length": "8.value",
        "fps": "9.value",
        "image": "17.image",
    },
    "ltx-2.5-t2v": {
        "prompt": "10.text",
        "negative_prompt": "11.text",
        "seed": "19.noise_seed+27.noise_seed",
        "width": "6.value",
        "height": "7.value",
        "length": "8.value",
        "fps": "9.value",
    },
    "ltx-2.5-i2v": {
        "prompt": "10.text",
        "negative_prompt": "11.text",
        "seed": "23.noise_seed+32.noise_seed",
        "width": "6.value",
        "height": "7.value",
        "length": "8.value",
        "fps": "9.value",
        "image": "17.image",
    },
    "minimax-h3-t2v": {
        "prompt": "11.prompt",
        "seed": "13.noise_seed",
        "steps": "8.value",
        "width": "11.width",
        "height": "11.height",
        "length": "11.length",
    },
    "minimax-h3-i2v": {
        "prompt": "13.prompt",
        "seed": "15.noise_seed",
        "steps": "8.value",
        "width": "13.width",
        "height": "13.height",
        "length": "13.length",
        "image": "11.image",
        "last_image": "12.image",
    },
    "minimax-h3-r2v": {
        "prompt": "14.prompt",
        "seed": "16.noise_seed",
        "steps": "8.value",
        "width": "14.width",
        "height": "14.height",
        "length": "14.length",
        "image": "11.image",
        "image2": "12.image",
        "image3": "13.image",
    },
    "seedvr2-upscale": {"seed": "8.seed", "image": "3.image"},
    "seedvr2-upscale-video": {"seed": "12.seed", "image": "3.file"},
    "ace-step": {"prompt": "2.tags", "seed": "8.seed", "steps": "8.steps", "cfg": "8.cfg"},
    "ace-step-1.5": {"prompt": "6.tags", "seed": "4.value", "steps": "10.steps"},
}
LENGTHS = {"minimax": 158, "ltx": 97, "wan22": 49, "hunyuan": 49}
# By template, what the turbo switch makes of steps, cfg and the model: its two settings.
TURBO: dict[str, tuple[Expected, Expected]] = {
    "anima": ({"steps": 30, "cfg": 4}, {"steps": 8, "cfg": 1}),
    "qwen-image-2512": ({"steps": 50, "cfg": 4}, {"steps": 4, "cfg": 1}),
    "qwen-image-edit-2511": ({"steps": 40, "cfg": 4}, {"steps": 4, "cfg": 1}),
    "wan22-t2v": ({"steps": 20, "cfg": 3.5}, {"steps": 4, "cfg": 1}),
    "wan22-i2v": ({"steps": 20, "cfg": 3.5}, {"steps": 4, "cfg": 1}),
    "minimax-h3-t2v": ({"steps": 20}, {"steps": 8}),
    "minimax-h3-i2v": ({"steps": 20}, {"steps": 8}),
    "minimax-h3-r2v": ({"steps": 20}, {"steps": 4}),
}
FILES = ("image", "last_image", "image2", "image3", "video")


def request(name: str, **values: Any) -> dict[str, Any]:
    """The example of a template with other values; a template's own parameters go to theirs."""
    example = {**shipped.params(name)["example"]}
    own = {**example.get("parameters", {})}
    own.pop("turbo", None)
    for key, value in values.items():
        is_own = key in shipped.params(name).get("parameters", {}) and key != "image"
        (own if is_own else example)[key] = value
    return {**example, "parameters": own}


def value_of(name: str, key: str) -> Any:
    if key in FILES:
        return "https://example.com/" + ("clip.mp4" if key == "video" else "image.png")
    if key == "length":
        return next(length for word, length in LENGTHS.items() if name.startswith(word))
    return NUMBERS.get(key, f"a new {key}")


def at(workflow: dict[str, Any], target: str) -> Any:
    node_id, _, name = target.partition(".")
    return workflow[node_id]["inputs"][name]


@pytest.mark.parametrize("name", PLACES)
def test_each_key_reaches_its_inputs_only(name: str) -> None:
    values = {key: value_of(name, key) for key in PLACES[name]}
    with plan_of(request(name)) as before, plan_of(request(name, **values)) as after:
        assert after.findings == ()
        for key, value in values.items():
            found = [at(after.workflow, target) for target in PLACES[name][key].split("+")]
            if key in FILES:
                assert "/" in found[0]
                assert not found[0].startswith(("https:", "data:"))
            else:
                assert found == [value] * len(found)
                assert after.parameters[key] == value
        targets = {target for key in values for target in PLACES[name][key].split("+")}
        assert changes(before.workflow, after.workflow) - splits(after.workflow) <= targets


def changes(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """The inputs of nodes in both workflows that hold another value."""
    changed = set()
    for node_id in before.keys() & after.keys():
        inputs = before[node_id]["inputs"]
        for key, value in after[node_id]["inputs"].items():
            is_split = key in ("start_at_step", "end_at_step")
            if key in inputs and inputs[key] != value and not is_split:
                changed.add(f"{node_id}.{key}")
    return changed


def splits(workflow: dict[str, Any]) -> set[str]:
    """The inputs that say at which step the second model begins; they follow the steps."""
    return {
        f"{node_id}.value"
        for node_id, node in workflow.items()
        if node["_meta"]["title"].startswith("split")
    }


@pytest.mark.parametrize("name", TURBO)
@pytest.mark.parametrize("is_turbo", [False, True])
def test_turbo_sets_steps_cfg_and_model(name: str, is_turbo: bool) -> None:
    with plan_of(request(name, turbo=is_turbo)) as plan:
        assert plan.parameters.items() >= TURBO[name][is_turbo].items()
        assert plan.parameters["turbo"] is is_turbo
    with plan_of(request(name, turbo=is_turbo, steps=6)) as plan:
        assert plan.parameters["steps"] == 6


@pytest.mark.parametrize("name", ["wan22-t2v", "wan22-i2v"])
@pytest.mark.parametrize(("is_turbo", "steps", "split"), [(False, 30, 15), (True, 6, 3)])
def test_the_split_follows_the_steps(name: str, is_turbo: bool, steps: int, split: int) -> None:
    with plan_of(request(name, turbo=is_turbo, steps=steps)) as plan:
        word = "turbo" if is_turbo else "full"
        (found,) = (
            node["inputs"]["value"]
            for node in plan.workflow.values()
            if node["_meta"]["title"] == f"split ({word})"
        )
        assert found == split


@pytest.mark.parametrize("name", PLACES)
def test_a_lora_reaches_each_model(name: str) -> None:
    """Each model loader is read by a loader of the LoRA and by nothing else."""
    with plan_of(request(name, loras=[{"name": LORA, "strength": 0.5}])) as plan:
        workflow = plan.workflow
        loaders = {
            node_id
            for node_id, node in workflow.items()
            if node["class_type"] in ("UNETLoader", "CheckpointLoaderSimple")
        }
        added = {
            node_id: node
            for node_id, node in workflow.items()
            if node["inputs"].get("lora_name") == LORA
        }
        assert len(added) == len(loaders)
        assert all(node["inputs"]["strength_model"] == 0.5 for node in added.values())
        for node_id, node in workflow.items():
            for value in node["inputs"].values():
                if isinstance(value, list) and value[0] in loaders and value[1] == 0:
                    assert node_id in added
        assert plan.findings == ()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("flux2-klein-edit", {"LoadImage": 1, "VAEEncode": 1, "ReferenceLatent": 4}),
        ("qwen-image-edit-2511", {"LoadImage": 1}),
        ("qwen-image-2.1-edit", {"LoadImage": 1}),
        ("flux3-klein-edit", {"LoadImage": 1}),
        ("minimax-h3-i2v", {"LoadImage": 1}),
        ("minimax-h3-r2v", {"LoadImage": 1}),
    ],
)
def test_images_not_sent_are_left_out(name: str, left: dict[str, int]) -> None:
    with plan_of(request(name)) as plan:
        classes = [node["class_type"] for node in plan.workflow.values()]
        assert {class_type: classes.count(class_type) for class_type in left} == left
        assert plan.findings == ()


def test_a_last_frame_is_optional() -> None:
    job_input = request("wan22-flf2v")
    del job_input["parameters"]["last_image"]
    with plan_of(job_input) as plan:
        assert "end_image" not in plan.workflow["10"]["inputs"]
        assert plan.findings == ()


def test_bare_base64_reaches_an_own_image() -> None:
    photo = pictures.encoded(pictures.photo())
    with plan_of(request("wan22-flf2v", last_image=photo)) as plan:
        assert at(plan.workflow, "16.image").endswith(".png")
        assert at(plan.workflow, "9.image") != at(plan.workflow, "16.image")


@pytest.mark.parametrize("name", shipped.NAMES)
def test_an_older_comfyui_refuses_a_newer_template(name: str) -> None:
    params = shipped.params(name)
    needed = params.get("requirements", {}).get("comfyui", "")
    if needed and not params.get("older"):
        sentence = f"'{name}' needs ComfyUI {needed} or newer, and this worker has 0.3.75"
        with pytest.raises(ComfyUITooOld, match=sentence), plan_of(request(name), "0.3.75"):
            pass
    else:
        with plan_of(request(name), "0.3.75") as plan:
            assert plan.name == params.get("older", name)
