"""Each rule by which the nodes of a graph are read, on a graph of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import find_roles
from tests.core_nodes import (
    DEFS,
    OBJECT_INFO,
    found,
    found_in,
    ksampler,
    node,
    second_stage,
    txt2img,
)


def without(graph: Workflow, names: Iterable[str]) -> Workflow:
    return {
        node_id: graph_node for node_id, graph_node in graph.items() if node_id not in set(names)
    }


def test_a_plain_graph_takes_every_parameter() -> None:
    roles = find_roles(txt2img(), DEFS)
    assert {
        name: [str(node_input) for node_input in found] for name, found in roles.inputs.items()
    } == {
        "prompt": ["positive.text"],
        "negative_prompt": ["negative.text"],
        "seed": ["sampler.seed"],
        "steps": ["sampler.steps"],
        "cfg": ["sampler.cfg"],
        "sampler": ["sampler.sampler_name"],
        "scheduler": ["sampler.scheduler"],
        "denoise": ["sampler.denoise"],
        "checkpoint": ["loader.ckpt_name"],
        "width": ["latent.width"],
        "height": ["latent.height"],
        "batch_size": ["latent.batch_size"],
    }
    assert roles.outputs == ("save",)
    assert roles.ambiguous == {}
    [sampler] = roles.samplers
    assert (sampler.model, sampler.latent) == (
        Input("sampler", "model"),
        Input("sampler", "latent_image"),
    )


def test_a_second_stage_shares_numbers_except_denoise() -> None:
    upscale = node("LatentUpscale", samples=["sampler", 0], width=768, height=768)
    graph = txt2img(upscale=upscale, second=second_stage(latent_image=["upscale", 0]))
    graph["decode"]["inputs"]["samples"] = ["second", 0]
    roles = find_roles(graph, DEFS)
    assert found(roles, "steps") == ["sampler.steps", "second.steps"]
    assert found(roles, "seed") == ["sampler.seed", "second.seed"]
    assert found(roles, "denoise") == ["second.denoise"]
    assert found(roles, "width") == ["latent.width"]
    assert [str(size.width) for size in roles.scaled_sizes] == ["upscale.width"]


def test_a_stage_without_noise_has_no_seed() -> None:
    advanced = {
        "noise_seed": 5,
        "start_at_step": 0,
        "end_at_step": 10,
        "return_with_leftover_noise": "enable",
    }
    first = ksampler(**advanced, add_noise="enable")
    last = ksampler(**advanced, add_noise="disable", latent_image=["sampler", 0])
    for sampler in (first, last):
        sampler["class_type"] = "KSamplerAdvanced"
        del sampler["inputs"]["seed"], sampler["inputs"]["denoise"]
    graph = txt2img(
        sampler=first, last=last, decode=node("VAEDecode", samples=["last", 0], vae=["loader", 2])
    )
    roles = find_roles(graph, DEFS)
    assert found(roles, "seed") == ["sampler.noise_seed"]
    assert len(roles.step_ranges) == 4


CUSTOM = {
    "guider": node(
        "CFGGuider",
        model=["loader", 0],
        positive=["positive", 0],
        negative=["negative", 0],
        cfg=4.0,
    ),
    "noise": node("RandomNoise", noise_seed=["number", 0]),
    "number": node("PrimitiveInt", value=5),
    "select": node("KSamplerSelect", sampler_name="euler"),
    "sigmas": node(
        "BasicScheduler", model=["loader", 0], scheduler="normal", steps=20, denoise=1.0
    ),
    "split": node("SplitSigmas", sigmas=["sigmas", 0], step=10),
    "sampler": node(
        "SamplerCustomAdvanced",
        guider=["guider", 0],
        noise=["noise", 0],
        sampler=["select", 0],
        sigmas=["split", 1],
        latent_image=["latent", 0],
    ),
}


def test_split_and_single_node_samplers_read_alike() -> None:
    roles = find_roles(txt2img(**CUSTOM), DEFS)
    assert {
        name: found(roles, name)
        for name in ("seed", "steps", "cfg", "sampler", "scheduler", "prompt")
    } == {
        "seed": ["number.value"],
        "steps": ["sigmas.steps"],
        "cfg": ["guider.cfg"],
        "sampler": ["select.sampler_name"],
        "scheduler": ["sigmas.scheduler"],
        "prompt": ["positive.text"],
    }
    [sampler] = roles.samplers
    assert (sampler.node_id, sampler.model) == ("sampler", Input("guider", "model"))
    assert (sampler.positive, sampler.negative) == (
        Input("guider", "positive"),
        Input("guider", "negative"),
    )
    assert [(str(split.node_input), str(split.steps)) for split in roles.step_ranges] == [
        ("split.step", "sigmas.steps")
    ]


def test_only_a_dual_guiders_first_conditioning_is_positive() -> None:
    guider = node(
        "DualCFGGuider",
        model=["loader", 0],
        cond1=["positive", 0],
        cond2=["negative", 0],
        negative=["negative", 0],
        cfg_conds=5.0,
        cfg_cond2_negative=2.0,
    )
    roles = find_roles(txt2img(**{**CUSTOM, "guider": guider}), DEFS)
    assert found(roles, "prompt") == ["positive.text"]
    assert found(roles, "cfg") == ["guider.cfg_conds"]


def test_only_a_lone_bare_sampler_counts() -> None:
    tool = {
        "tool": node(
            "SamplerCustomAdvanced", guider=["look", 0], noise=["quiet", 0], sampler=["select", 0]
        )
        | {"_meta": {"title": "depth"}},
        "look": node("BasicGuider", model=["depth", 0], conditioning=["lotus", 0]),
        "lotus": node("LotusConditioning"),
        "quiet": node("DisableNoise"),
        "depth": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
        "select": node("KSamplerSelect", sampler_name="euler"),
        "one_step": node(
            "BasicScheduler", model=["depth", 0], scheduler="normal", steps=1, denoise=1.0
        ),
        "see": node("VAEDecode", samples=["tool", 0], vae=["loader", 2]),
        "apply": node(
            "ControlNetApplyAdvanced",
            positive=["positive", 0],
            negative=["negative", 0],
            image=["see", 0],
        ),
    }
    tool["tool"]["inputs"] |= {"sigmas": ["one_step", 0], "latent_image": ["encoded", 0]}
    tool["encoded"] = node("VAEEncode", pixels=["image", 0], vae=["loader", 2])
    tool["image"] = node("LoadImage", image="example.png")
    graph = txt2img(**tool, sampler=ksampler(positive=["apply", 0], negative=["apply", 1]))
    roles = find_roles(graph, DEFS)
    assert [sampler.node_id for sampler in roles.samplers] == ["sampler"]
    assert found(roles, "steps") == ["sampler.steps"]
    assert found(roles, "checkpoint") == ["loader.ckpt_name"]
    graph["save"]["inputs"]["images"] = ["see", 0]
    assert found(find_roles(graph, DEFS), "steps") == ["one_step.steps"]


def test_size_dependent_nodes_get_the_size() -> None:
    graph = txt2img(
        sampling=node(
            "ModelSamplingFlux",
            model=["loader", 0],
            width=512,
            height=640,
            max_shift=1.0,
            base_shift=0.5,
        ),
        sampler=ksampler(model=["sampling", 0]),
    )
    assert found_in(graph, "width") == ["latent.width", "sampling.width"]
    assert found_in(graph, "height") == ["latent.height"]


def test_sizes_are_traced_through_pass_through_nodes() -> None:
    latent = node("EmptyLatentImage", width=["number", 0], height=["camera", 2], batch_size=1)
    graph = txt2img(
        latent=latent,
        number=node("PrimitiveInt", value=512),
        camera=node("WanCameraEmbedding", width=512, height=640, length=81),
    )
    assert found_in(graph, "width") == ["number.value"]
    assert found_in(graph, "height") == ["camera.height"]
    latent["inputs"]["width"] = ["size", 0]
    graph |= {
        "size": node("GetImageSize", image=["image", 0]),
        "image": node("LoadImage", image="example.png"),
    }
    assert found_in(graph, "width") is None


def test_an_image_used_as_mask_is_the_mask() -> None:
    inpaint = node(
        "VAEEncodeForInpaint",
        pixels=["image", 0],
        mask=["image", 1],
        vae=["loader", 2],
        grow_mask_by=6,
    )
    graph = txt2img(
        image=node("LoadImage", image="a.png"),
        latent=inpaint,
        other=node("LoadImage", image="b.png"),
    )
    roles = find_roles(graph, DEFS)
    assert found(roles, "image") == ["image.image"]
    assert roles.alpha_masks == (Input("image", "image"),)
    inpaint["inputs"]["mask"] = ["other", 1]
    roles = find_roles(graph, DEFS)
    assert (found(roles, "image"), found(roles, "mask"), roles.alpha_masks) == (
        ["image.image"],
        ["other.image"],
        (),
    )


def test_the_first_of_two_different_pictures_counts() -> None:
    graph = txt2img(
        latent=node("VAEEncode", pixels=["image", 0], vae=["loader", 2]),
        image=node("LoadImage", image="a.png"),
        other=node("LoadImage", image="b.png"),
        show=node("PreviewImage", images=["other", 0]),
    )
    roles = find_roles(graph, DEFS)
    assert found(roles, "image") == ["image.image"]
    assert [str(candidate.node_input) for candidate in roles.unassigned["image"]] == ["other.image"]
    graph["other"]["inputs"]["image"] = "a.png"
    assert found_in(graph, "image") == ["image.image", "other.image"]


def test_a_conditioning_rate_counts_if_the_clips() -> None:
    rate = node(
        "LTXVConditioning", positive=["positive", 0], negative=["negative", 0], frame_rate=24.0
    )
    graph = txt2img(
        rate=rate,
        sampler=ksampler(positive=["rate", 0], negative=["rate", 1]),
        save=node("SaveAnimatedWEBP", images=["decode", 0], fps=24.0, filename_prefix="clip"),
    )
    assert found_in(graph, "fps") == ["rate.frame_rate", "save.fps"]
    rate["inputs"]["frame_rate"] = 25.0
    assert found_in(graph, "fps") == ["save.fps"]


def test_the_vae_loader_serves_the_stages_decoder() -> None:
    vae = node("VAELoader", vae_name="ae.safetensors")
    assert found_in(
        txt2img(vae=vae, decode=node("VAEDecode", samples=["sampler", 0], vae=["vae", 0])), "vae"
    ) == ["vae.vae_name"]


def test_every_loader_of_the_checkpoint_is_set() -> None:
    graph = txt2img(
        other=node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        decode=node("VAEDecode", samples=["sampler", 0], vae=["other", 2]),
    )
    assert found_in(graph, "checkpoint") == ["loader.ckpt_name", "other.ckpt_name"]
    graph["other"]["inputs"]["ckpt_name"] = "sub/sdxl.safetensors"
    assert found_in(graph, "checkpoint") == ["loader.ckpt_name"]


def test_merged_models_leave_the_checkpoint_open() -> None:
    graph = txt2img(
        other=node("CheckpointLoaderSimple", ckpt_name="sub/sdxl.safetensors"),
        merge=node("ModelMergeSimple", model1=["loader", 0], model2=["other", 0], ratio=0.5),
        sampler=ksampler(model=["merge", 0]),
    )
    assert found_in(graph, "checkpoint") == "ambiguous"


def test_nodes_that_feed_no_output_do_not_count() -> None:
    graph = txt2img(idle=node("LoadImage", image="a.png"), dead=ksampler(seed=9))
    roles = find_roles(graph, DEFS)
    assert found(roles, "seed") == ["sampler.seed"]
    assert "image" not in roles.inputs
    assert found(find_roles(without(graph, ["save", "decode"]), DEFS), "image") == ["idle.image"]


def test_a_paid_node_holds_its_own_parameters() -> None:
    graph = {
        "make": node(
            "FluxKontextProImageNode",
            prompt="a cat",
            seed=1,
            steps=50,
            guidance=3.0,
            aspect_ratio="1:1",
        ),
        "save": node("SaveImage", images=["make", 0], filename_prefix="x"),
    }
    roles = find_roles(graph, DEFS)
    assert (found(roles, "prompt"), found(roles, "seed"), found(roles, "guidance")) == (
        ["make.prompt"],
        ["make.seed"],
        ["make.guidance"],
    )
    assert roles.samplers == ()
    assert "negative_prompt" not in roles.inputs


def test_a_custom_sampler_is_known_by_its_sockets() -> None:
    custom = {
        "input": {
            "required": {
                "image": ["IMAGE"],
                "unet": ["MODEL"],
                "cond_neg": ["CONDITIONING"],
                "cond": ["CONDITIONING"],
                "noise_seed": ["INT", {"min": 0, "max": 99}],
                "steps": ["INT", {"min": 1}],
            }
        },
        "output": ["IMAGE"],
        "output_name": ["image"],
    }
    defs = NodeDefs({**OBJECT_INFO, "TiledUpscale": custom})
    graph = txt2img(
        tiled=node(
            "TiledUpscale",
            image=["decode", 0],
            unet=["loader", 0],
            cond=["positive", 0],
            cond_neg=["negative", 0],
            noise_seed=1,
            steps=4,
        ),
        save=node("SaveImage", images=["tiled", 0], filename_prefix="x"),
    )
    roles = find_roles(graph, defs)
    assert found(roles, "steps") == ["sampler.steps"]
    assert [str(candidate.node_input) for candidate in roles.unassigned["steps"]] == ["tiled.steps"]
    assert roles.samplers[1].model == Input("tiled", "unet")
    assert roles.samplers[1].negative == Input("tiled", "cond_neg")


def test_missing_classes_are_read_by_input_names() -> None:
    known = txt2img()
    hidden = NodeDefs({name: OBJECT_INFO[name] for name in ("SaveImage", "VAEDecode")})
    with_all, with_few = find_roles(known, DEFS), find_roles(known, hidden)
    assert with_few.inputs == with_all.inputs
    assert find_roles(known, NodeDefs({})).inputs == with_all.inputs


def test_a_bundle_of_links_is_followed() -> None:
    bundle = ["BASIC_PIPE"]
    defs = NodeDefs(
        {
            **OBJECT_INFO,
            "ToPipe": {
                "input": {
                    "required": {
                        "model": ["MODEL"],
                        "positive": ["CONDITIONING"],
                        "negative": ["CONDITIONING"],
                    }
                },
                "output": bundle,
                "output_name": ["pipe"],
            },
            "FromPipe": {
                "input": {"required": {"pipe": bundle}},
                "output": ["MODEL", "CONDITIONING", "CONDITIONING"],
                "output_name": ["model", "positive", "negative"],
            },
        }
    )
    graph = txt2img(
        tied=node(
            "ToPipe", model=["loader", 0], positive=["positive", 0], negative=["negative", 0]
        ),
        untied=node("FromPipe", pipe=["tied", 0]),
        sampler=ksampler(model=["untied", 0], positive=["untied", 1], negative=["untied", 2]),
    )
    roles = find_roles(graph, defs)
    assert (found(roles, "prompt"), found(roles, "negative_prompt")) == (
        ["positive.text"],
        ["negative.text"],
    )
    assert found(roles, "checkpoint") == ["loader.ckpt_name"]


@pytest.mark.parametrize(
    ("title", "class_type", "inputs", "name"),
    [
        ("Seed", "PrimitiveInt", {"value": 3}, "seed"),
        ("input: seed", "PrimitiveInt", {"value": 3}, "seed"),
        ("negative", "PrimitiveStringMultiline", {"value": "x"}, "negative_prompt"),
        ("Batch size", "PrimitiveInt", {"value": 3}, "batch_size"),
        ("input:warmth", "PrimitiveFloat", {"value": 0.5}, "warmth"),
    ],
)
def test_a_title_claims_a_parameter(
    title: str, class_type: str, inputs: dict[str, Any], name: str
) -> None:
    titled = node(class_type, title, **inputs)
    # Anything that is read by a node that feeds an output will do.
    graph = txt2img(
        titled=titled, show=node("PreviewImage", images=["decode", 0], extra=["titled", 0])
    )
    assert found_in(graph, name) == ["titled.value"]


def test_a_title_without_matching_input_claims_nothing() -> None:
    graph = txt2img(save=node("SaveImage", "Image", images=["decode", 0], filename_prefix="x"))
    roles = find_roles(graph, DEFS)
    assert "image" not in roles.inputs
    graph["decode"]["_meta"] = {"title": "seed"}
    assert found(find_roles(graph, DEFS), "seed") == ["sampler.seed"]


def test_circles_and_dangling_links_do_no_harm() -> None:
    graph = txt2img(
        positive=node("CLIPTextEncode", clip=["gone", 1], text=["sampler", 0]),
        latent=node("LatentUpscale", samples=["sampler", 0], width=["latent", 0], height=64),
        loader=node("LoraLoader", model=["loader", 0], clip=["loader", 1], lora_name="x"),
    )
    roles = find_roles(graph, DEFS)
    assert found(roles, "seed") == ["sampler.seed"]
    assert "prompt" not in roles.inputs
