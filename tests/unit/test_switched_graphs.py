"""Parameters, LoRAs and ControlNets in graphs of ComfyUI 0.33: switches, expressions, selectors, text tools."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_worker.errors import InvalidValue, NoPlace
from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.planning.plan import PlanContext
from comfy_worker.planning.planner import prepare
from comfy_worker.request.schema import JobInput
from comfy_worker.settings import Settings
from comfy_worker.workflow.check.batch import check_batch_size
from comfy_worker.workflow.edit.controlnet import ControlNetSpec, splice_controlnets
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.fill_notes import fill_notes
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from comfy_worker.workflow.edit.read import read
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.values import Values
from tests.core_nodes import ksampler, node, txt2img
from tests.official_templates import COMFYUI_033

MODELS = {
    ("CheckpointLoaderSimple", "ckpt_name"): ["sd15.safetensors"],
    ("LoraLoader", "lora_name"): ["style.safetensors", "turbo.safetensors"],
    ("LoraLoaderModelOnly", "lora_name"): ["style.safetensors", "turbo.safetensors"],
    ("ControlNetLoader", "control_net_name"): ["canny.safetensors"],
}
VALUES = {"steps": 7, "cfg": 2.5, "width": 768, "height": 1152, "denoise": 0.5, "seed": 5}


@pytest.fixture(scope="module")
def defs() -> NodeDefs:
    """The declarations of 0.33, with a few model files."""
    declared = COMFYUI_033.object_info
    for (class_type, name), files in MODELS.items():
        entry = declared[class_type]["input"]["required"][name]
        if entry[0] == "COMBO":
            entry[1]["options"] = files
        else:
            entry[0] = files
    return NodeDefs(declared)


def switch(on_true: Any, on_false: Any, choice: Any = ("turbo", 0)) -> dict[str, Any]:
    is_link = isinstance(choice, tuple)
    return node(
        "ComfySwitchNode",
        switch=list(choice) if is_link else choice,
        on_true=on_true,
        on_false=on_false,
    )


def with_turbo(is_on: bool) -> Workflow:
    """Steps, cfg and model behind switches; the model's turbo branch has a LoRA."""
    graph = txt2img(sampler=ksampler(steps=["steps", 0], cfg=["cfg", 0], model=["model", 0]))
    graph["turbo"] = node("PrimitiveBoolean", value=is_on)
    graph["few"], graph["many"] = node("PrimitiveInt", value=4), node("PrimitiveInt", value=20)
    graph["steps"] = switch(["few", 0], ["many", 0])
    graph["cfg"] = switch(1.0, 4.0)
    graph["lora"] = node(
        "LoraLoaderModelOnly", model=["loader", 0], lora_name="turbo.safetensors", strength_model=1
    )
    graph["model"] = switch(["lora", 0], ["loader", 0])
    return graph


def filled(
    graph: Workflow, defs: NodeDefs, **values: Any
) -> tuple[Workflow, dict[str, Any], list[str]]:
    """The filled graph, what ``parameters`` tells, and the warnings."""
    roles = find_roles(graph, defs)
    result = fill(graph, roles, defs, values)
    return result, read(result, roles, before=graph), fill_notes(graph, result, roles, values)


def gets(graph: Workflow, node_id: str, name: str) -> Any:
    return Values(graph)(Input(node_id, name))


@pytest.mark.parametrize("is_on", [True, False])
def test_the_branch_that_is_on_is_set(defs: NodeDefs, is_on: bool) -> None:
    graph = with_turbo(is_on)
    result, parameters, _ = filled(graph, defs, steps=7, cfg=2.5)
    assert (gets(result, "sampler", "steps"), gets(result, "sampler", "cfg")) == (7, 2.5)
    assert (parameters["steps"], parameters["cfg"]) == (7, 2.5)
    result["turbo"]["inputs"]["value"] = not is_on
    assert gets(result, "sampler", "steps") == (20 if is_on else 4)


def test_an_unknown_choice_is_bypassed(defs: NodeDefs) -> None:
    graph = with_turbo(True)
    graph["turbo"] = node("StringContains", string=["?", 0], substring="x", case_sensitive=True)
    result, parameters, _ = filled(graph, defs, steps=7, cfg=2.5)
    assert (result["sampler"]["inputs"]["steps"], result["sampler"]["inputs"]["cfg"]) == (7, 2.5)
    assert (parameters["steps"], parameters["cfg"]) == (7, 2.5)


def sized(expression: str | None = None, **more: Any) -> Workflow:
    graph = txt2img(
        latent=node("EmptyLatentImage", width=["size", 0], height=["size", 1], batch_size=1)
    )
    graph["size"] = node(
        "ResolutionSelector", aspect_ratio="16:9 (Widescreen)", megapixels=1.0, multiple=8
    )
    if expression is not None:
        for slot, side in enumerate(("width", "height")):
            graph[side] = node(
                "ComfyMathExpression", expression=expression, **{"values.a": ["size", slot]}
            )
            graph["latent"]["inputs"][side] = [side, 1]
    return {**graph, **more}


def test_a_resolution_selector_is_bypassed(defs: NodeDefs) -> None:
    graph = sized()
    assert {side: read(graph, find_roles(graph, defs))[side] for side in ("width", "height")} == {
        "width": 1368,
        "height": 768,
    }
    result, parameters, warnings = filled(graph, defs, width=768, height=1152)
    assert (gets(result, "latent", "width"), gets(result, "latent", "height")) == (768, 1152)
    assert (parameters["width"], parameters["height"], warnings) == (768, 1152, [])


def test_every_reader_of_a_size_gets_it(defs: NodeDefs) -> None:
    graph = sized()
    graph["shown"] = node("PreviewAny", source=["size", 0])
    result, _, _ = filled(graph, defs, width=768)
    assert (result["shown"]["inputs"]["source"], result["latent"]["inputs"]["height"]) == (
        768,
        ["size", 1],
    )


def test_a_rounded_size_is_told(defs: NodeDefs) -> None:
    result, parameters, warnings = filled(
        sized("max(((a + 15) // 16) * 16, 256)"), defs, width=770, height=1152
    )
    assert (gets(result, "latent", "width"), gets(result, "latent", "height")) == (784, 1152)
    assert (parameters["width"], parameters["height"]) == (784, 1152)
    assert warnings == ["width is 784: the graph computes it from the 770 of the request"]


@pytest.mark.parametrize(("expression", "size"), [("a", 768), ("a * 3", 768), ("a / 2", 768)])
def test_a_scaled_size_reaches_the_latent(defs: NodeDefs, expression: str, size: int) -> None:
    result, parameters, _ = filled(sized(expression), defs, width=768)
    assert (gets(result, "latent", "width"), parameters["width"]) == (size, 768)


def test_half_a_size_is_upscaled_later(defs: NodeDefs) -> None:
    upscaler = node(
        "LTXVLatentUpsampler", samples=["sampler", 0], upscale_model=["?", 0], vae=["loader", 2]
    )
    graph = sized("a / 2", upscaler=upscaler)
    graph["decode"]["inputs"]["samples"] = ["upscaler", 0]
    result, parameters, warnings = filled(graph, defs, width=768, height=1152)
    assert (gets(result, "latent", "width"), gets(result, "latent", "height")) == (384, 576)
    assert (parameters["width"], parameters["height"], warnings) == (768, 1152, [])


def test_one_number_for_both_sides_is_split(defs: NodeDefs) -> None:
    graph = sized(size=node("PrimitiveInt", value=1024))
    graph["latent"]["inputs"]["height"] = ["size", 0]
    result, _, _ = filled(graph, defs, width=768, height=1152)
    assert (gets(result, "latent", "width"), gets(result, "latent", "height")) == (768, 1152)


def measured(picture: dict[str, Any]) -> Workflow:
    return sized(
        size=node("GetImageSize", image=["picture", 0]),
        picture=picture,
        sent=node("LoadImage", image="x.png"),
    )


def test_a_resized_picture_gives_the_size(defs: NodeDefs) -> None:
    size = {"resize_type.width": 512, "resize_type.height": 512, "resize_type.crop": "center"}
    resize = node("ResizeImageMaskNode", input=["sent", 0], resize_type="scale dimensions", **size)
    result, parameters, _ = filled(measured(resize), defs, width=768, height=1152)
    inputs = result["picture"]["inputs"]
    assert (inputs["resize_type.width"], inputs["resize_type.height"]) == (768, 1152)
    assert (parameters["width"], parameters["height"]) == (768, 1152)


def test_a_sent_picture_decides_the_size(defs: NodeDefs) -> None:
    with pytest.raises(NoPlace, match="no input for width"):
        filled(measured(node("ImageInvert", image=["sent", 0])), defs, width=768)


def test_a_computed_length_is_bypassed(defs: NodeDefs) -> None:
    graph = txt2img(
        latent=node(
            "EmptyHunyuanLatentVideo", width=512, height=512, length=["frames", 1], batch_size=1
        )
    )
    graph["seconds"], graph["rate"] = node("PrimitiveInt", value=5), node("PrimitiveInt", value=24)
    names = {"values.a": ["seconds", 0], "values.b": ["rate", 0]}
    graph["frames"] = node("ComfyMathExpression", expression="a * b + 1", **names)
    assert read(graph, find_roles(graph, defs))["length"] == 121
    result, parameters, _ = filled(graph, defs, length=49)
    assert (gets(result, "latent", "length"), parameters["length"]) == (49, 49)


def prompted(**nodes: Any) -> Workflow:
    return {
        **txt2img(positive=node("CLIPTextEncode", text=["text", 0], clip=["loader", 1])),
        **nodes,
    }


INSTRUCTED = {"asked": node("PrimitiveString", value="a cat")}
REPLACED = node("StringReplace", string="Improve: {prompt}", find="{prompt}", replace=["asked", 0])
SIZED_TEXT = node("StringReplace", string=["inner", 0], find="{width}", replace="512")


@pytest.mark.parametrize(
    "nodes",
    [
        {"text": REPLACED},
        {"text": SIZED_TEXT, "inner": REPLACED},
        {"text": node("StringReplace", string=["asked", 0], find="'", replace='"')},
        {"text": node("RegexReplace", string=["asked", 0], regex_pattern="x", replace="")},
        {"text": node("StringFormat", f_string="{a}, sharp", **{"values.a": ["asked", 0]})},
        {"text": node("PreviewAny", source=["asked", 0])},
        {"text": switch(["asked", 0], ["?", 0], choice=True)},
        {
            "text": node(
                "TextGenerate", clip=["loader", 1], prompt=["asked", 0], sampling_mode="off"
            )
        },
        {
            "text": node(
                "TextGenerate", clip=["loader", 1], prompt=["joined", 0], sampling_mode="off"
            ),
            "joined": node(
                "StringConcatenate", string_a=["rules", 0], string_b=["asked", 0], delimiter=""
            ),
            "rules": node(
                "PrimitiveStringMultiline", "System Prompt", value="Expand what follows. "
            ),
        },
        {
            "text": node(
                "StringConcatenate", string_a=["asked", 0], string_b=["word", 0], delimiter=", "
            ),
            "word": node("PrimitiveString", "Trigger Word", value="sks style"),
        },
    ],
)
def test_a_prompt_is_found_behind_text_tools(defs: NodeDefs, nodes: dict[str, Any]) -> None:
    result, _, _ = filled(prompted(**INSTRUCTED, **nodes), defs, prompt="a dog")
    assert result["asked"]["inputs"]["value"] == "a dog"


def test_a_question_about_a_picture_stays(defs: NodeDefs) -> None:
    text = node(
        "TextGenerate",
        clip=["loader", 1],
        prompt="Describe this image",
        image=["sent", 0],
        sampling_mode="off",
    )
    with pytest.raises(NoPlace, match="no input for prompt"):
        filled(prompted(text=text, sent=node("LoadImage", image="x.png")), defs, prompt="a dog")


@pytest.mark.parametrize("is_on", [True, False])
def test_a_lora_covers_both_branches(defs: NodeDefs, is_on: bool) -> None:
    graph = with_turbo(is_on)
    result = splice_loras(graph, find_roles(graph, defs), defs, [LoraSpec("style", 0.5, 0.0)])
    (added,) = result.keys() - graph.keys()
    assert result[added]["inputs"]["model"] == ["loader", 0]
    assert result["lora"]["inputs"]["model"] == result["model"]["inputs"]["on_false"] == [added, 0]


def test_a_lora_goes_to_the_active_model(defs: NodeDefs) -> None:
    graph = with_turbo(True)
    graph["other"] = node("UNETLoader", unet_name="other.safetensors", weight_dtype="default")
    graph["model"] = switch(["other", 0], ["loader", 0])
    result = splice_loras(graph, find_roles(graph, defs), defs, [LoraSpec("style", 0.5, 0.0)])
    (added,) = result.keys() - graph.keys()
    assert result["model"]["inputs"]["on_true"] == [added, 0]
    assert result[added]["inputs"]["model"] == ["other", 0]


def test_an_unknown_choice_gets_loras_in_both(defs: NodeDefs) -> None:
    graph = with_turbo(True)
    graph["turbo"] = node("StringContains", string=["?", 0], substring="x", case_sensitive=True)
    graph["other"] = node("UNETLoader", unet_name="other.safetensors", weight_dtype="default")
    graph["model"] = switch(["other", 0], ["loader", 0])
    result = splice_loras(graph, find_roles(graph, defs), defs, [LoraSpec("style", 0.5, 0.0)])
    assert len(result.keys() - graph.keys()) == 2
    assert all(result["model"]["inputs"][name][0] not in graph for name in ("on_true", "on_false"))


def test_a_controlnet_lies_below_a_switch(defs: NodeDefs) -> None:
    graph = with_turbo(True)
    graph["sampler"]["inputs"]["positive"] = ["chosen", 0]
    graph["chosen"] = switch(["positive", 0], ["negative", 0])
    spec = ControlNetSpec(image="map.png", model="canny")
    result = splice_controlnets(graph, find_roles(graph, defs), defs, [spec])
    applied = result["sampler"]["inputs"]["positive"][0]
    assert result[applied]["inputs"]["positive"] == ["chosen", 0]


@pytest.mark.parametrize("name", ["steps", "cfg", "width", "height"])
def test_official_templates_pass_values_on(defs: NodeDefs, name: str) -> None:
    """What ``parameters`` tells is what was asked, or a warning tells the difference."""
    count = 0
    for graph in COMFYUI_033.exports.values():
        roles = find_roles(graph, defs)
        if name not in roles.inputs or any(
            target.node_id not in graph for target in roles.inputs[name]
        ):
            continue
        result = fill(graph, roles, defs, {name: VALUES[name]})
        value, warnings = (
            read(result, roles, before=graph)[name],
            fill_notes(graph, result, roles, VALUES),
        )
        assert value == VALUES[name] or any(name in warning for warning in warnings)
        count += 1
    assert count > 50


def test_a_batch_behind_an_expression_is_limited(defs: NodeDefs) -> None:
    graph = txt2img(latent=node("EmptyLatentImage", width=64, height=64, batch_size=["many", 1]))
    graph["many"] = node("ComfyMathExpression", expression="a * 8", **{"values.a": 2})
    check_batch_size(graph, defs, 16)
    with pytest.raises(InvalidValue, match="at most 15, not 16"):
        check_batch_size(graph, defs, 15)


@pytest.mark.parametrize("is_on", [True, False])
def test_a_parameter_sets_a_switch_first(defs: NodeDefs, tmp_path: Path, is_on: bool) -> None:
    graph = with_turbo(not is_on)
    graph["turbo"]["_meta"] = {"title": "input:turbo"}
    comfyui: Any = SimpleNamespace(
        defs=defs,
        model_path=lambda _folder, _name: None,
        explain=lambda _class_type: None,
        validate=lambda _workflow: None,
        searched=lambda folder: [folder],
        refresh=lambda: None,
    )
    request = JobInput.read({"workflow": graph, "steps": 7, "parameters": {"turbo": is_on}})
    files = InputFiles(tmp_path, Settings().input_limits)
    planned = prepare(PlanContext(Job("job", request), None, comfyui, files))
    assert gets(planned.workflow, "turbo", "value") is is_on
    assert gets(planned.workflow, "sampler", "steps") == planned.parameters["steps"] == 7


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"steps": 7}, ("sampler", "seed", 20)),
        ({"seed": 7}, ("sampler", "steps", 20)),
    ],
)
def test_seed_and_steps_share_a_number(
    defs: NodeDefs, values: dict[str, int], kept: tuple[str, str, int]
) -> None:
    graph = txt2img(
        sampler=ksampler(steps=["number", 0], seed=["number", 0]),
        number=node("PrimitiveInt", value=20),
    )
    result, parameters, _ = filled(graph, defs, **values)
    name = next(iter(values))
    assert (gets(result, "sampler", name), parameters[name]) == (7, 7)
    assert gets(result, *kept[:2]) == kept[2]


@pytest.mark.parametrize("title", ["", "steps", "batch_size"])
def test_steps_and_batch_share_a_number(defs: NodeDefs, title: str) -> None:
    graph = txt2img(
        sampler=ksampler(steps=["number", 0]),
        latent=node("EmptyLatentImage", width=64, height=64, batch_size=["number", 0]),
        number=node("PrimitiveInt", value=2),
    )
    graph["number"]["_meta"] = {"title": title}
    result, parameters, _ = filled(graph, defs, steps=7)
    assert (gets(result, "sampler", "steps"), gets(result, "latent", "batch_size")) == (7, 2)
    assert (parameters["steps"], parameters["batch_size"]) == (7, 2)


def test_cfg_and_denoise_share_a_number(defs: NodeDefs) -> None:
    graph = txt2img(
        sampler=ksampler(cfg=["number", 0], denoise=["number", 0]),
        number=node("PrimitiveFloat", value=1.0),
    )
    result, _, _ = filled(graph, defs, cfg=5.5)
    assert (gets(result, "sampler", "cfg"), gets(result, "sampler", "denoise")) == (5.5, 1.0)


def test_a_prompt_is_no_file_name(defs: NodeDefs) -> None:
    graph = txt2img(text=node("PrimitiveString", value="cat"))
    graph["positive"]["inputs"]["text"] = ["text", 0]
    graph["save"]["inputs"]["filename_prefix"] = ["text", 0]
    result, parameters, _ = filled(graph, defs, prompt="a dog")
    assert (gets(result, "positive", "text"), parameters["prompt"]) == ("a dog", "a dog")
    assert gets(result, "save", "filename_prefix") == "cat"


def test_a_shown_text_claims_no_prompt(defs: NodeDefs) -> None:
    graph = txt2img(shown=node("PreviewAny", source="?"), text=node("PrimitiveString", value="x"))
    graph["below"] = node("PreviewAny", source=["text", 0])
    for node_id in ("shown", "text"):
        graph[node_id]["_meta"] = {"title": "prompt"}
    result, parameters, _ = filled(graph, defs, prompt="a dog")
    assert (gets(result, "positive", "text"), parameters["prompt"]) == ("a dog", "a dog")
    assert (gets(result, "shown", "source"), gets(result, "text", "value")) == ("?", "x")


def scaled(source: str, *nodes: dict[str, Any]) -> Workflow:
    """A latent of 512 x 512 that further nodes change before the sampler, one after the other."""
    graph = txt2img()
    size = {"width": 512, "height": 512, "batch_size": 1}
    graph["latent"] = node(source, **size, **({"color": 0} if source == "EmptyImage" else {}))
    before, is_image = "latent", source == "EmptyImage"
    for index, further in enumerate(nodes):
        before_name = "image" if is_image else "samples"
        graph[f"n{index}"] = {**further, "inputs": {before_name: [before, 0], **further["inputs"]}}
        before = f"n{index}"
    if is_image:
        graph["encode"] = node("VAEEncode", pixels=[before, 0], vae=["loader", 2])
        before = "encode"
    graph["sampler"]["inputs"]["latent_image"] = [before, 0]
    return graph


SIZE_64 = {"width": 64, "height": 64}


@pytest.mark.parametrize(
    ("source", "further"),
    [
        ("EmptyImage", node("ImageScale", upscale_method="bilinear", crop="disabled", **SIZE_64)),
        ("EmptyLatentImage", node("LatentCrop", x=0, y=0, **SIZE_64)),
        ("EmptyLatentImage", node("LatentUpscale", upscale_method="x", crop="disabled", **SIZE_64)),
    ],
)
def test_the_last_size_before_a_sampler_is_set(
    defs: NodeDefs, source: str, further: dict[str, Any]
) -> None:
    result, parameters, warnings = filled(scaled(source, further), defs, width=96)
    assert (gets(result, "n0", "width"), gets(result, "n0", "height")) == (96, 64)
    assert (parameters["width"], parameters["height"], warnings) == (96, 64, [])


def test_one_number_for_a_resized_square(defs: NodeDefs) -> None:
    square = {"width": ["side", 0], "height": ["side", 0]}
    further = node("ImageScale", upscale_method="bilinear", crop="disabled", **square)
    graph = scaled("EmptyImage", further)
    graph["side"] = node("PrimitiveInt", value=64)
    result, parameters, warnings = filled(graph, defs, width=96)
    assert (gets(result, "n0", "width"), gets(result, "n0", "height")) == (96, 64)
    assert (parameters["width"], parameters["height"], warnings) == (96, 64, [])


def test_a_size_changed_by_a_factor_is_told(defs: NodeDefs) -> None:
    further = node("ImageScaleBy", upscale_method="bilinear", scale_by=2.0)
    _, parameters, warnings = filled(scaled("EmptyImage", further), defs, width=96)
    assert (parameters["width"], parameters["height"]) == (192, 1024)
    assert warnings == [
        "width goes to latent.width, but node n0 (ImageScaleBy) gives the sampler 192"
    ]


def test_an_unknown_size_is_left_out(defs: NodeDefs) -> None:
    further = node("ImageScaleToTotalPixels", upscale_method="bilinear", megapixels=1.0)
    _, parameters, warnings = filled(scaled("EmptyImage", further), defs, width=96)
    assert "width" not in parameters
    assert len(warnings) == 1
    assert "n0 (ImageScaleToTotalPixels) gives the sampler a number that" in warnings[0]


def test_a_crop_cannot_enlarge(defs: NodeDefs) -> None:
    _, parameters, warnings = filled(
        scaled("EmptyLatentImage", node("LatentCrop", x=0, y=0, **SIZE_64)), defs, width=1024
    )
    assert (parameters["width"], len(warnings)) == (512, 1)


@pytest.mark.parametrize(
    ("further", "reached"),
    [
        (node("RepeatLatentBatch", amount=2), 6),
        (node("LatentFromBatch", batch_index=1, length=1), 1),
        (node("LatentFromBatch", batch_index=0, length=64), 3),
    ],
)
def test_another_number_of_pictures_is_told(
    defs: NodeDefs, further: dict[str, Any], reached: int
) -> None:
    _, parameters, warnings = filled(scaled("EmptyLatentImage", further), defs, batch_size=3)
    assert parameters["batch_size"] == reached
    assert len(warnings) == (reached != 3)
    assert all(f"gives the sampler {reached}" in warning for warning in warnings)


def joined(join: dict[str, Any], other: int = 512) -> Workflow:
    """Two latents that a node joins before the sampler: ``latent`` of 512 x 512, and ``other``."""
    graph = txt2img(join=join, sampler=ksampler(latent_image=["join", 0]))
    graph["other"] = node("EmptyLatentImage", width=other, height=other, batch_size=1)
    return graph


JOINS = [
    node("LatentBatch", samples2=["other", 0], samples1=["latent", 0]),
    node("LatentBlend", samples1=["latent", 0], samples2=["other", 0], blend_factor=0.5),
    node("LatentComposite", samples_to=["latent", 0], samples_from=["other", 0], x=0, y=0),
    node("BatchLatentsNode", **{"latents.latent1": ["other", 0], "latents.latent0": ["latent", 0]}),
]


@pytest.mark.parametrize("join", JOINS)
def test_the_first_joined_latent_gives_the_size(defs: NodeDefs, join: dict[str, Any]) -> None:
    result, parameters, warnings = filled(joined(join, other=256), defs, width=768)
    assert (gets(result, "latent", "width"), gets(result, "other", "width")) == (768, 256)
    assert (parameters["width"], warnings) == (768, [])
    roles = find_roles(joined(join, other=256), defs)
    assert [str(candidate.node_input) for candidate in roles.unassigned["width"]] == ["other.width"]
    result, _, _ = filled(joined(join), defs, width=768)
    assert (gets(result, "latent", "width"), gets(result, "other", "width")) == (768, 768)


def test_the_canvas_of_a_composition_gives_the_size(defs: NodeDefs) -> None:
    composite = node("LatentComposite", samples_to=["sampler", 0], samples_from=["part", 0])
    composite["inputs"] |= {"x": 0, "y": 0, "feather": 64}
    graph = txt2img(
        small=node("EmptyLatentImage", width=256, height=512, batch_size=1),
        part=ksampler(latent_image=["small", 0]),
        composite=composite,
        last=ksampler(latent_image=["composite", 0], denoise=0.6),
        decode=node("VAEDecode", samples=["last", 0], vae=["loader", 2]),
    )
    result, parameters, _ = filled(graph, defs, width=768, height=768)
    assert (gets(result, "latent", "width"), gets(result, "small", "width")) == (768, 256)
    assert (parameters["width"], gets(result, "small", "height")) == (768, 768)


@pytest.mark.parametrize(
    ("class_type", "reached"), [("LatentBatch", 6), ("LatentAdd", 3), ("LatentConcat", 3)]
)
def test_joined_batches_are_added(defs: NodeDefs, class_type: str, reached: int) -> None:
    join = node(class_type, samples1=["latent", 0], samples2=["other", 0])
    _, parameters, warnings = filled(joined(join), defs, batch_size=3)
    assert (parameters["batch_size"], len(warnings)) == (reached, reached != 3)
    assert all(f"(LatentBatch) gives the sampler {reached}" in warning for warning in warnings)


def test_a_sum_of_unknown_batches_is_left_out(defs: NodeDefs) -> None:
    join = node("LatentBatch", samples1=["latent", 0], samples2=["inner", 0])
    graph = joined(join)
    for inner in (
        node("LatentBatch", samples1=["other", 0], samples2=["other", 0]),
        node("VAEEncode", pixels=["image", 0], vae=["loader", 2]),
    ):
        graph["inner"], graph["image"] = inner, node("LoadImage", image="a.png")
        _, parameters, warnings = filled(graph, defs, batch_size=3)
        assert "batch_size" not in parameters
        assert "a number that only a run can tell" in warnings[0]


def test_the_size_of_a_later_stage_is_told(defs: NodeDefs) -> None:
    upscale = node("LatentUpscale", samples=["sampler", 0], upscale_method="bislerp")
    upscale["inputs"] |= {"width": 1024, "height": 1024, "crop": "disabled"}
    graph = txt2img(
        upscale=upscale,
        second=ksampler(latent_image=["upscale", 0], denoise=0.5),
        decode=node("VAEDecode", samples=["second", 0], vae=["loader", 2]),
    )
    result, _, warnings = filled(graph, defs, width=768)
    assert gets(result, "upscale", "width") == 1536
    assert warnings == ["width is that of latent.width; in proportion upscale.width has 1536"]


@pytest.mark.parametrize("frames", [97, ["frames", 0], 49])
def test_the_sound_is_as_long_as_the_video(defs: NodeDefs, frames: Any) -> None:
    latents = {"video_latent": ["latent", 0], "audio_latent": ["sound", 0]}
    sound = node("LTXVEmptyLatentAudio", frames_number=frames, frame_rate=25, batch_size=1)
    graph = txt2img(
        latent=node("EmptyLTXVLatentVideo", width=512, height=512, length=97, batch_size=1),
        sound=sound,
        frames=node("PrimitiveInt", value=97),
        both=node("LTXVConcatAVLatent", **latents),
        sampler=ksampler(latent_image=["both", 0]),
    )
    result, _, _ = filled(graph, defs, length=33)
    assert gets(result, "latent", "length") == 33
    assert gets(result, "sound", "frames_number") == (49 if frames == 49 else 33)
