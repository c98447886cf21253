"""Which model of a workflow a LoRA goes to."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_worker.errors import Ambiguous, InputError, InvalidValue, ModelMismatch, NoPlace
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras, with_experts
from comfy_worker.workflow.graph import Input, Workflow
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler
from tests.base_graphs import base_graph, node, roles_of, small_defs

PAIR_NAMES = [
    ("a-high", "a-low"),
    ("style_HighNoise_v2", "style_LowNoise_v3"),
    ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise", "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise"),
    ("Style_HIGH_fp16", "Style_LOW_fp16"),
    ("style-HN", "style-LN"),
    ("Wan22-T2V-H-e8", "Wan22-T2V-L-e12"),
    ("high/style", "low/style"),
    ("high-detail-high", "high-detail-low"),
    ("detail_base", "detail_refiner"),
]  # fmt: skip
FILES = [f"{name}.safetensors" for pair in PAIR_NAMES for name in pair]
FILES += ["plain.safetensors", "low-poly.safetensors", "solo_high_noise.safetensors"]
DEFS = small_defs(loras=FILES)
HIGH_LOADER, LOW_LOADER = "20", "21"


def experts(high: str = "wan_high_noise.sft", low: str = "wan_low_noise.sft") -> Workflow:
    """A workflow of two stages, each with a model of its own."""
    graph = base_graph("KSamplerAdvanced", "base.ckpt")
    graph[HIGH_LOADER] = node("UNETLoader", unet_name=high, weight_dtype="default")
    graph[LOW_LOADER] = node("UNETLoader", unet_name=low, weight_dtype="default")
    graph["5"]["inputs"]["model"] = [HIGH_LOADER, 0]
    graph["6"]["inputs"]["model"] = [LOW_LOADER, 0]
    return graph


def loaders(workflow: Workflow) -> dict[str, list[str]]:
    """By loader, the LoRAs that were put behind it."""
    found: dict[str, list[str]] = {}
    for name in (HIGH_LOADER, LOW_LOADER, "1"):
        users = [name]
        for node_id, entry in workflow.items():
            link = entry["inputs"].get("model")
            if entry["class_type"].startswith("LoraLoader") and link and link[0] in users:
                users.append(node_id)
                found.setdefault(name, []).append(entry["inputs"]["lora_name"])
    return found


ROLES = roles_of("KSamplerAdvanced")


def spliced(graph: Workflow, *loras: LoraSpec, roles: Roles = ROLES) -> tuple[Any, list[str]]:
    specs, warnings = with_experts(graph, roles, DEFS, loras)
    return loaders(splice_loras(graph, roles, DEFS, specs)), warnings


@pytest.mark.parametrize(("high", "low"), PAIR_NAMES)
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_pair_goes_to_its_experts(high: str, low: str, is_turned: bool) -> None:
    loras = [LoraSpec(high), LoraSpec(low)]
    found, warnings = spliced(experts(), *(loras[::-1] if is_turned else loras))
    assert found == {HIGH_LOADER: [f"{high}.safetensors"], LOW_LOADER: [f"{low}.safetensors"]}
    assert warnings == []


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("x.sft", "y.sft"),  # told apart by the order of the samplers alone
        ("wan-HN.gguf", "wan-LN.gguf"),
        ("sd_xl_base_1.0.sft", "sd_xl_refiner_1.0.sft"),
    ],
)
def test_experts_are_found_in_workflows(high: str, low: str) -> None:
    loras = [LoraSpec("plain", target="low"), LoraSpec("a-high"), LoraSpec("a-low")]
    found, _ = spliced(experts(high, low), *loras)
    assert found == {
        HIGH_LOADER: ["a-high.safetensors"],
        LOW_LOADER: ["plain.safetensors", "a-low.safetensors"],
    }


def test_names_count_more_than_the_order() -> None:
    graph = experts("wan_low_noise.sft", "wan_high_noise.sft")
    found, _ = spliced(graph, LoraSpec("plain", target="high"))
    assert found == {LOW_LOADER: ["plain.safetensors"]}


def test_titles_name_experts_too() -> None:
    graph = experts("x.sft", "y.sft")
    graph[HIGH_LOADER]["_meta"] = {"title": "low noise"}
    graph[LOW_LOADER]["_meta"] = {"title": "high noise"}
    found, _ = spliced(graph, LoraSpec("plain", target="high noise"))
    assert found == {LOW_LOADER: ["plain.safetensors"]}


@pytest.mark.parametrize("name", ["plain", "low-poly", "a-high"])
def test_a_single_lora_goes_to_both(name: str) -> None:
    found, warnings = spliced(experts(), LoraSpec(name))
    assert found == {name_of: [f"{name}.safetensors"] for name_of in (HIGH_LOADER, LOW_LOADER)}
    assert len(warnings) == 1
    assert f"lora {name}.safetensors went to both models" in warnings[0]


def test_a_clear_name_goes_to_its_expert_alone() -> None:
    found, warnings = spliced(experts(), LoraSpec("solo_high_noise"))
    assert found == {HIGH_LOADER: ["solo_high_noise.safetensors"]}
    assert "went only to the model for high noise" in warnings[0]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("high", HIGH_LOADER),
        ("HIGH", HIGH_LOADER),
        ("High Noise", HIGH_LOADER),
        ("high_noise", HIGH_LOADER),
        ("base", HIGH_LOADER),
        ("low", LOW_LOADER),
        ("refiner", LOW_LOADER),
        (HIGH_LOADER, HIGH_LOADER),  # a loader
        ("6", LOW_LOADER),  # a sampler
        ("30", LOW_LOADER),  # a node between them
        ("the second stage", LOW_LOADER),
    ],
)
def test_targets_choose_a_model(target: str, expected: str) -> None:
    graph = experts()
    graph["30"] = node("ModelSamplingSD3", model=[LOW_LOADER, 0], shift=3.0)
    graph["6"]["inputs"]["model"] = ["30", 0]
    graph["6"]["_meta"] = {"title": "the second stage"}
    found, warnings = spliced(graph, LoraSpec("plain", target=target))
    assert found == {expected: ["plain.safetensors"]}
    assert warnings == []


def test_both_means_all_models() -> None:
    found, warnings = spliced(experts(), LoraSpec("plain", target="both"))
    assert found.keys() == {HIGH_LOADER, LOW_LOADER}
    assert warnings == []


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("hihg", InvalidValue, "did you mean high"),
        ("99", InvalidValue, "write high, low, or the id or title of a node"),
        ("2", NoPlace, "node 2 uses no model of a sampler"),
        ("stage", Ambiguous, "nodes 5, 6 all have this title"),
    ],
)
def test_unusable_targets_are_errors(target: str, error: type[InputError], words: str) -> None:
    graph = experts()
    for sampler in ("5", "6"):
        graph[sampler]["_meta"] = {"title": "stage"}
    with pytest.raises(error, match=words):
        spliced(graph, LoraSpec("plain", target=target))


def test_one_model_has_no_experts() -> None:
    graph = base_graph("KSampler", "base.ckpt")
    with pytest.raises(NoPlace, match="does not have two models"):
        spliced(graph, LoraSpec("plain", target="low"), roles=roles_of("KSampler"))
    found, warnings = spliced(
        graph, LoraSpec("a-high"), LoraSpec("a-low"), roles=roles_of("KSampler")
    )
    assert found == {"1": ["a-high.safetensors", "a-low.safetensors"]}
    assert warnings == []


def test_a_shared_model_cannot_be_half_changed() -> None:
    graph = base_graph("KSampler twice", "base.ckpt")
    with pytest.raises(NoPlace, match="sampler 5 uses the same model"):
        spliced(graph, LoraSpec("plain", target="6"), roles=roles_of("KSampler twice"))


def test_unconnected_samplers_are_no_experts() -> None:
    graph = experts("x.sft", "y.sft")
    graph["6"]["inputs"]["latent_image"] = ["4", 0]
    found, warnings = spliced(graph, LoraSpec("plain"))
    assert found.keys() == {HIGH_LOADER, LOW_LOADER}
    assert warnings == []


def test_a_target_must_fit_the_lora() -> None:
    graph = experts()
    specs, warnings = with_experts(graph, ROLES, DEFS, [LoraSpec("plain", target="low")])
    assert warnings == []
    with pytest.raises(ModelMismatch):
        splice_loras(graph, ROLES, DEFS, specs, fits=lambda root, file: root != LOW_LOADER)


def test_no_warning_where_one_model_does_not_fit() -> None:
    fits = lambda root, file: root == HIGH_LOADER  # noqa: E731 - the shape of `fits`
    _, warnings = with_experts(experts(), ROLES, DEFS, [LoraSpec("plain")], fits=fits)
    assert warnings == []


def test_a_sampler_with_two_models_has_experts() -> None:
    two = {
        "input": {
            "required": {
                "model_high_noise": ["MODEL"],
                "model_low_noise": ["MODEL"],
                "latent_image": ["LATENT"],
            }
        },
        "output": ["LATENT"],
        "output_name": ["LATENT"],
        "name": "MoeSampler",
    }
    defs = small_defs({"MoeSampler": two}, loras=FILES)
    graph = experts("x.sft", "y.sft")
    links = {"model_high_noise": [HIGH_LOADER, 0], "model_low_noise": [LOW_LOADER, 0]}
    graph["6"] = node("MoeSampler", latent_image=["4", 0], **links)
    del graph["5"]
    sampler = Sampler("6", Input("6", "model_high_noise"), None, None, None)
    roles = Roles((sampler,), {}, {}, ("8",))
    specs, _ = with_experts(graph, roles, defs, [LoraSpec("a-low"), LoraSpec("a-high")])
    assert loaders(splice_loras(graph, roles, defs, specs)) == {
        HIGH_LOADER: ["a-high.safetensors"],
        LOW_LOADER: ["a-low.safetensors"],
    }
