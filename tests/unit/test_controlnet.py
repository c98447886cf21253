from __future__ import annotations

import math
from typing import Any

import pytest

from comfy_worker.errors import (
    Ambiguous,
    InvalidValue,
    ModelMismatch,
    ModelNotFound,
    NodeNotInstalled,
    NoPlace,
)
from comfy_worker.workflow.edit.controlnet import (
    ControlNetRules,
    ControlNetSpec,
    splice_controlnets,
)
from comfy_worker.workflow.edit.controlnet_types import ControlNetFile, choose_model
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.roles.roles import Roles
from tests.base_graphs import GRAPHS, base_graph, node, roles_of, small_defs

DEFS = small_defs(controlnets=["sd15/canny.safetensors", "depth.safetensors", "union.safetensors"])
READY = ControlNetSpec("map.png", model="depth")


def added(before: Workflow, after: Workflow, class_type: str) -> dict[str, dict[str, Any]]:
    """The inputs of the nodes of a class that a splice added, by id."""
    return {
        node_id: each["inputs"]
        for node_id, each in after.items()
        if node_id not in before and each["class_type"] == class_type
    }


def only(found: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    ((node_id, inputs),) = found.items()
    return node_id, inputs


@pytest.mark.parametrize("graph_name", GRAPHS)
def test_a_controlnet_goes_between_conditioning_and_sampler(graph_name: str) -> None:
    graph = base_graph(graph_name, "base.ckpt")
    spec = ControlNetSpec("map.png", model="depth", strength=0.7, start=0.1, end=0.9)
    spliced = splice_controlnets(graph, roles_of(graph_name), DEFS, [spec])
    image, image_inputs = only(added(graph, spliced, "LoadImage"))
    loader, loader_inputs = only(added(graph, spliced, "ControlNetLoader"))
    apply, apply_inputs = only(added(graph, spliced, "ControlNetApplyAdvanced"))
    assert image_inputs == {"image": "map.png"}
    assert loader_inputs == {"control_net_name": "depth.safetensors"}
    assert apply_inputs == {
        "positive": ["2", 0],
        "negative": ["2", 0] if graph_name == "BasicGuider" else ["3", 0],
        "control_net": [loader, 0],
        "image": [image, 0],
        "strength": 0.7,
        "start_percent": 0.1,
        "end_percent": 0.9,
    }
    wired = base_graph(graph_name, "base.ckpt", positive=(apply, 0), negative=(apply, 1))
    assert {node_id: spliced[node_id] for node_id in graph} == wired
    assert len(spliced) == len(graph) + 3


def test_several_stand_in_a_row() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    specs = [READY, ControlNetSpec("photo.png", type="canny")]
    spliced = splice_controlnets(graph, roles_of("KSampler"), DEFS, specs)
    first, second = added(graph, spliced, "ControlNetApplyAdvanced")
    assert spliced[first]["inputs"]["positive"] == ["2", 0]
    assert spliced[second]["inputs"]["positive"] == [first, 0]
    assert spliced[second]["inputs"]["negative"] == [first, 1]
    assert spliced["5"]["inputs"]["positive"] == [second, 0]


def test_existing_controlnets_stay_before_the_new_controlnet() -> None:
    graph = base_graph("KSampler", "base.ckpt", positive=("20", 0), negative=("20", 1))
    graph["20"] = node("ControlNetApplyAdvanced", positive=["2", 0], negative=["3", 0])
    spliced = splice_controlnets(graph, roles_of("KSampler"), DEFS, [READY])
    _, inputs = only(added(graph, spliced, "ControlNetApplyAdvanced"))
    assert (inputs["positive"], inputs["negative"]) == (["20", 0], ["20", 1])
    assert spliced["20"] == graph["20"]


def test_samplers_share_the_control_map_and_model() -> None:
    graph = base_graph("KSampler twice", "base.ckpt")
    graph["20"] = node("CLIPTextEncode", clip=["1", 1], text="a dog")
    graph["6"]["inputs"]["positive"] = ["20", 0]
    spliced = splice_controlnets(graph, roles_of("KSampler twice"), DEFS, [READY])
    first, second = added(graph, spliced, "ControlNetApplyAdvanced")
    assert (
        len(added(graph, spliced, "LoadImage"))
        == len(added(graph, spliced, "ControlNetLoader"))
        == 1
    )
    assert spliced["5"]["inputs"]["positive"] == [first, 0]
    assert spliced["6"]["inputs"]["positive"] == [second, 0]
    assert spliced[second]["inputs"]["positive"] == ["20", 0]


def refiner() -> tuple[Workflow, Roles]:
    graph = base_graph("KSampler twice", "base.ckpt")
    graph["20"] = node("CheckpointLoaderSimple", ckpt_name="refiner.ckpt")
    graph["21"] = node("CLIPTextEncode", clip=["20", 1], text="a cat")
    graph["6"]["inputs"] |= {"model": ["20", 0], "positive": ["21", 0], "negative": ["21", 0]}
    return graph, roles_of("KSampler twice")


def test_a_sampler_with_an_incompatible_model_is_unchanged() -> None:
    graph, roles = refiner()
    spliced = splice_controlnets(
        graph, roles, DEFS, [READY], rules=ControlNetRules(fits=lambda root, file: root == "1")
    )
    apply, _ = only(added(graph, spliced, "ControlNetApplyAdvanced"))
    assert spliced["5"]["inputs"]["positive"] == [apply, 0]
    assert spliced["6"] == graph["6"]


@pytest.mark.parametrize("fits", [True, None])
def test_an_unknown_family_is_taken(fits: bool | None) -> None:
    graph, roles = refiner()
    spliced = splice_controlnets(
        graph, roles, DEFS, [READY], rules=ControlNetRules(fits=lambda root, file: fits)
    )
    assert len(added(graph, spliced, "ControlNetApplyAdvanced")) == 2


def test_one_that_fits_no_model_is_an_error() -> None:
    graph, roles = refiner()
    with pytest.raises(ModelMismatch, match=r"depth\.safetensors"):
        splice_controlnets(
            graph, roles, DEFS, [READY], rules=ControlNetRules(fits=lambda root, file: False)
        )


@pytest.mark.parametrize(
    ("spec", "class_types"),
    [
        (ControlNetSpec("a.png", type="canny"), ["Canny"]),
        (ControlNetSpec("a.png", type="Canny", model="canny"), ["Canny"]),
        (ControlNetSpec("a.png", type="canny", preprocess=False), []),
        (ControlNetSpec("a.png", model="canny"), []),
        (ControlNetSpec("a.png", type="depth"), []),
        (ControlNetSpec("a.png", type="depth", preprocess=True), ["MiDaS-DepthMapPreprocessor"]),
    ],
)
def test_preprocessing_is_for_canny_and_for_who_asks(
    spec: ControlNetSpec, class_types: list[str]
) -> None:
    pack = {"MiDaS-DepthMapPreprocessor": MIDAS, "Zoe-DepthMapPreprocessor": MIDAS}
    defs = small_defs(pack, controlnets=["canny.safetensors", "depth.safetensors"])
    graph = base_graph("KSampler", "base.ckpt")
    spliced = splice_controlnets(graph, roles_of("KSampler"), defs, [spec])
    assert [
        each["class_type"] for each in spliced.values() if each["class_type"] in {*pack, "Canny"}
    ] == class_types
    image, _ = only(added(graph, spliced, "LoadImage"))
    _, apply = only(added(graph, spliced, "ControlNetApplyAdvanced"))
    made_by = apply["image"][0]
    assert (spliced[made_by]["inputs"]["image"] if class_types else apply["image"]) == [image, 0]


MIDAS = {
    "input": {
        "required": {"image": ["IMAGE"]},
        "optional": {
            "a": ["FLOAT", {"default": 6.28}],
            "safe": [["enable", "disable"]],
            "resolution": ["INT", {"default": 512}],
        },
    },
    "output": ["IMAGE"],
}


def test_a_preprocessor_gets_its_defaults() -> None:
    defs = small_defs({"MiDaS-DepthMapPreprocessor": MIDAS}, controlnets=["depth.safetensors"])
    graph = base_graph("KSampler", "base.ckpt")
    specs = [ControlNetSpec("a.png", type="depth", preprocess=True)]
    spliced = splice_controlnets(graph, roles_of("KSampler"), defs, specs)
    _, inputs = only(added(graph, spliced, "MiDaS-DepthMapPreprocessor"))
    image, _ = only(added(graph, spliced, "LoadImage"))
    assert inputs == {"image": [image, 0], "a": 6.28, "safe": "enable", "resolution": 512}


def test_canny_has_its_own_thresholds() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    spliced = splice_controlnets(
        graph, roles_of("KSampler"), DEFS, [ControlNetSpec("a.png", type="canny")]
    )
    _, inputs = only(added(graph, spliced, "Canny"))
    assert (inputs["low_threshold"], inputs["high_threshold"]) == (0.4, 0.8)


def test_a_missing_preprocessor_error_names_the_pack() -> None:
    spec = ControlNetSpec("a.png", type="depth", preprocess=True)
    with pytest.raises(NodeNotInstalled, match="comfyui_controlnet_aux") as caught:
        splice_controlnets(base_graph("KSampler", "base.ckpt"), roles_of("KSampler"), DEFS, [spec])
    assert caught.value.details[0] == {
        "class_type": "DepthAnythingV2Preprocessor",
        "pack": "comfyui_controlnet_aux",
    }


@pytest.mark.parametrize("type_", [None, "inpaint", "qrcode"])
def test_a_type_without_a_preprocessor_is_refused(type_: str | None) -> None:
    spec = ControlNetSpec("a.png", model="depth", type=type_, preprocess=True)
    with pytest.raises(InvalidValue, match="preprocess needs a type"):
        splice_controlnets(base_graph("KSampler", "base.ckpt"), roles_of("KSampler"), DEFS, [spec])


@pytest.mark.parametrize(
    ("type_", "choice"),
    [
        ("canny", "canny/lineart/anime_lineart/mlsd"),
        ("lineart_anime", "canny/lineart/anime_lineart/mlsd"),
        ("pose", "openpose"),
        ("softedge", "hed/pidi/scribble/ted"),
        ("scribble", "hed/pidi/scribble/ted"),
        ("segmentation", "segment"),
        ("inpaint", "repaint"),
        ("depth", "depth"),
        ("union", "auto"),
        ("shuffle", "auto"),
        (None, "auto"),
    ],
)
def test_a_union_model_is_told_the_type(type_: str | None, choice: str) -> None:
    graph = base_graph("KSampler", "base.ckpt")
    spec = ControlNetSpec("a.png", model="union", type=type_, preprocess=False)
    is_union = "union.safetensors".__eq__
    spliced = splice_controlnets(
        graph, roles_of("KSampler"), DEFS, [spec], rules=ControlNetRules(is_union=is_union)
    )
    loader, _ = only(added(graph, spliced, "ControlNetLoader"))
    setter, inputs = only(added(graph, spliced, "SetUnionControlNetType"))
    assert inputs == {"control_net": [loader, 0], "type": choice}
    _, apply = only(added(graph, spliced, "ControlNetApplyAdvanced"))
    assert apply["control_net"] == [setter, 0]


def with_vae(graph: Workflow, where: str) -> Workflow:
    """The graph with a VAE loader in place of the checkpoint's own VAE, used somewhere or nowhere."""
    graph["20"] = node("VAELoader", vae_name="v")
    del graph["7"], graph["8"]
    if where == "below":
        graph["21"] = node("VAEDecode", samples=["5", 0], vae=["20", 0])
        graph["22"] = node("VAEEncode", pixels=["23", 0], vae=["24", 0])
    if where == "above":
        graph["21"] = node("VAEEncode", pixels=["23", 0], vae=["20", 0])
        graph["5"]["inputs"]["latent_image"] = ["21", 0]
    if where == "elsewhere":
        graph["21"] = node("VAEEncode", pixels=["23", 0], vae=["20", 0])
    graph["23"] = node("LoadImage", image="a.png")
    graph["24"] = node("VAELoader", vae_name="w")
    return graph


@pytest.mark.parametrize("where", ["below", "above", "elsewhere"])
def test_families_that_need_a_vae_get_the_samplers(where: str) -> None:
    graph = with_vae(base_graph("KSampler", "base.ckpt"), where)
    spliced = splice_controlnets(
        graph, roles_of("KSampler"), DEFS, [READY], rules=ControlNetRules(needs_vae=True)
    )
    _, apply = only(added(graph, spliced, "ControlNetApplyAdvanced"))
    assert apply["vae"] == ["20", 0]


def test_a_vae_that_nothing_uses_yet_will_do() -> None:
    graph = with_vae(base_graph("KSampler", "base.ckpt"), "nowhere")
    spliced = splice_controlnets(
        graph, roles_of("KSampler"), DEFS, [READY], rules=ControlNetRules(needs_vae=True)
    )
    _, apply = only(added(graph, spliced, "ControlNetApplyAdvanced"))
    assert apply["vae"] == ["1", 2]


def test_without_any_vae_there_is_no_place() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    graph["1"] = node("UNETLoader", unet_name="x", weight_dtype="default")
    del graph["7"], graph["8"]
    with pytest.raises(NoPlace, match="VAE"):
        splice_controlnets(
            graph, roles_of("KSampler"), DEFS, [READY], rules=ControlNetRules(needs_vae=True)
        )


def test_without_a_sampler_there_is_no_place() -> None:
    with pytest.raises(NoPlace, match="controlnets"):
        splice_controlnets(
            {"1": node("ApiImage", prompt="a")}, Roles((), {}, {}, ()), DEFS, [READY]
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 10.5}, "strength must be at least 0"),
        ({"strength": -0.1}, "strength must be"),
        ({"strength": math.nan}, "strength must be"),
        ({"start": -0.1}, "start must be at least 0"),
        ({"end": 1.1}, "end must be at least 0"),
        ({"start": 0.5, "end": 0.5}, "start must be below end"),
        ({"start": 0.8, "end": 0.2}, "start must be below end"),
    ],
)
def test_a_value_out_of_range_is_an_error(values: dict[str, float], message: str) -> None:
    spec = ControlNetSpec("a.png", model="depth", **values)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=message):
        splice_controlnets(base_graph("KSampler", "base.ckpt"), roles_of("KSampler"), DEFS, [spec])


def test_a_missing_controlnet_model_is_an_error() -> None:
    with pytest.raises(ModelNotFound, match="models/controlnet"):
        splice_controlnets(
            base_graph("KSampler", "base.ckpt"),
            roles_of("KSampler"),
            DEFS,
            [ControlNetSpec("a.png", model="pose")],
        )


FILES = [
    ControlNetFile("sd15/control_v11p_canny.pth", fits=True),
    ControlNetFile("sdxl/canny.safetensors", fits=False),
    ControlNetFile("canny_unknown.safetensors", fits=None),
    ControlNetFile("t2i_depth.pth", fits=None),
    ControlNetFile("promax.safetensors", fits=True, union=True),
    ControlNetFile("xl_lineart.safetensors", fits=False),
    ControlNetFile("dw_pose.safetensors", fits=None),
    ControlNetFile("hed.safetensors", fits=True),
]


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        ("canny", "sd15/control_v11p_canny.pth"),
        ("CANNY", "sd15/control_v11p_canny.pth"),
        ("depth", "promax.safetensors"),
        ("openpose", "promax.safetensors"),
        ("softedge", "hed.safetensors"),
        ("union", "promax.safetensors"),
    ],
)
def test_a_type_selects_by_family_then_by_name(type_: str, name: str) -> None:
    assert choose_model(type_, FILES).name == name


def test_an_unknown_family_is_accepted_without_a_union() -> None:
    assert (
        choose_model("openpose", [file for file in FILES if not file.union]).name
        == "dw_pose.safetensors"
    )


def test_a_missing_family_error_lists_other_models() -> None:
    with pytest.raises(
        ModelNotFound, match=r"lineart.*models/controlnet.*xl_lineart\.safetensors"
    ) as caught:
        choose_model("lineart", [file for file in FILES if not file.union])
    assert caught.value.details == [
        {"given": "lineart", "folder": "controlnet", "nearest": ["xl_lineart.safetensors"]}
    ]


def test_several_models_are_an_error_that_lists_them() -> None:
    files = [ControlNetFile("canny-a.pth", fits=True), ControlNetFile("canny-b.pth", fits=True)]
    with pytest.raises(Ambiguous, match="by model") as caught:
        choose_model("canny", files)
    assert [detail["file"] for detail in caught.value.details] == ["canny-a.pth", "canny-b.pth"]


@pytest.mark.parametrize("type_", [None, ""])
def test_neither_type_nor_model_is_an_error(type_: str | None) -> None:
    with pytest.raises(InvalidValue, match="controlnets needs a type"):
        choose_model(type_, FILES)


@pytest.mark.parametrize(
    ("spec", "files"),
    [
        (
            ControlNetSpec("a.png", type="canny"),
            {"sd15/canny.safetensors", "sdxl/canny.safetensors"},
        ),
        (ControlNetSpec("a.png", model="sd15/canny"), {"sd15/canny.safetensors"}),
    ],
)
def test_the_family_lookup_gets_loader_and_file(spec: ControlNetSpec, files: set[str]) -> None:
    lookups: set[tuple[str, str]] = set()

    def fits(root: str, file: str) -> bool:
        lookups.add((root, file))
        return file == "sd15/canny.safetensors"

    defs = small_defs(controlnets=["sd15/canny.safetensors", "sdxl/canny.safetensors"])
    graph = base_graph("KSampler", "base.ckpt")
    spliced = splice_controlnets(
        graph, roles_of("KSampler"), defs, [spec], rules=ControlNetRules(fits=fits)
    )
    _, loader = only(added(graph, spliced, "ControlNetLoader"))
    assert loader == {"control_net_name": "sd15/canny.safetensors"}
    assert lookups == {("1", file) for file in files}
