"""What holds for every splice, whatever the graph."""

from __future__ import annotations

import copy
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from comfy_worker.workflow.edit.clip_skip import splice_clip_skip
from comfy_worker.workflow.edit.controlnet import (
    ControlNetRules,
    ControlNetSpec,
    splice_controlnets,
)
from comfy_worker.workflow.edit.lora import LoraSpec, splice_loras
from comfy_worker.workflow.graph import Input, Link, Workflow, links_of
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.roles.samplers import Sampler
from tests.base_graphs import node, small_defs

DEFS = small_defs(loras=["a.safetensors", "b.safetensors"], controlnets=["canny.pth", "depth.pth"])

Splice = Callable[[Workflow, Roles], Workflow]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Workflow, Roles]:
    """Graphs with up to three loaders, patched models, encoders and samplers, linked at random."""
    ids = iter(draw(st.permutations([str(number) for number in range(1, 40)])))
    graph: Workflow = {}

    def add(class_type: str, **inputs: object) -> str:
        node_id = next(ids)
        graph[node_id] = node(class_type, **inputs)
        return node_id

    def pick(links: list[list[object]]) -> list[object]:
        return list(draw(st.sampled_from(links)))

    models: list[list[object]] = []
    clips: list[list[object]] = []
    for number in range(draw(st.integers(1, 3))):
        loader = add("CheckpointLoaderSimple", ckpt_name=f"{number}.ckpt")
        models.append([loader, 0])
        clips.append([loader, 1])
    vae = [models[0][0], 2]
    for _ in range(draw(st.integers(0, 3))):
        patch = draw(st.sampled_from(["lora", "shift", "merge", "skip"]))
        if patch == "lora":
            own = add(
                "LoraLoader",
                model=pick(models),
                clip=pick(clips),
                lora_name="own",
                strength_model=1.0,
            )
            models.append([own, 0])
            clips.append([own, 1])
        elif patch == "shift":
            models.append([add("ModelSamplingSD3", model=pick(models), shift=3.0), 0])
        elif patch == "merge":
            models.append(
                [add("ModelMergeSimple", model1=pick(models), model2=pick(models), ratio=0.5), 0]
            )
        else:
            clips.append([add("CLIPSetLastLayer", clip=pick(clips), stop_at_clip_layer=-2), 0])
    texts = [
        [add("CLIPTextEncode", clip=pick(clips), text="t"), 0]
        for _ in range(draw(st.integers(1, 3)))
    ]
    if draw(st.booleans()):
        texts.append(
            [add("ConditioningCombine", conditioning_1=pick(texts), conditioning_2=pick(texts)), 0]
        )
    latent: list[object] = [add("EmptyLatentImage", width=64, height=64, batch_size=1), 0]
    samplers = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            holder = add("BasicGuider", model=pick(models), conditioning=pick(texts))
            sampler = add("SamplerCustomAdvanced", guider=[holder, 0], latent_image=latent)
            roles = Sampler(
                sampler, Input(holder, "model"), Input(holder, "conditioning"), None, None
            )
        else:
            wires = {"model": pick(models), "positive": pick(texts), "negative": pick(texts)}
            sampler = add("KSampler", **wires, latent_image=latent, seed=1)
            wired = [Input(sampler, name) for name in wires]
            roles = Sampler(sampler, wired[0], wired[1], wired[2], None)
        samplers.append(roles)
        latent = [sampler, 0]
    decode = add("VAEDecode", samples=latent, vae=vae)
    output = add("SaveImage", images=[decode, 0], filename_prefix="p")
    return graph, Roles(tuple(samplers), {}, {}, (output,))


loras = st.lists(
    st.builds(
        LoraSpec,
        st.sampled_from(["a", "b"]),
        st.floats(-2, 2),
        st.none() | st.just(0.0) | st.floats(-2, 2),
    ),
    max_size=3,
)
controlnets = st.lists(
    st.builds(
        ControlNetSpec,
        image=st.just("i.png"),
        type=st.sampled_from(["canny", "depth"]),
        strength=st.floats(0, 10),
        end=st.floats(0.5, 1),
    ),
    max_size=3,
)
splices = st.one_of(
    loras.map(lambda specs: lambda graph, roles: splice_loras(graph, roles, DEFS, specs)),
    controlnets.map(
        lambda specs: (
            lambda graph, roles: splice_controlnets(
                graph, roles, DEFS, specs, rules=ControlNetRules(needs_vae=True)
            )
        )
    ),
    st.integers(1, 24).map(lambda layer: lambda graph, roles: splice_clip_skip(graph, DEFS, layer)),
)


def check_links(graph: Workflow) -> None:
    """Every link leads to an output that is there, of the type that the input takes; nothing runs in a circle."""
    done: dict[str, bool] = {}

    def visit(node_id: str) -> None:
        assert done.get(node_id, True), f"a circle through {node_id}"
        if node_id not in done:
            done[node_id] = False
            declared = DEFS[graph[node_id]["class_type"]]
            for name, link in links_of(graph[node_id]).items():
                assert (
                    declared.inputs[name].type
                    == DEFS[graph[link.node_id]["class_type"]].outputs[link.slot]
                )
                visit(link.node_id)
            done[node_id] = True

    for node_id in graph:
        visit(node_id)


@given(graphs(), splices)
def test_splices_keep_links_and_other_nodes_intact(
    case: tuple[Workflow, Roles], splice: Splice
) -> None:
    graph, roles = case
    before = copy.deepcopy(graph)
    spliced = splice(graph, roles)
    assert graph == before
    check_links(spliced)
    for node_id, each in graph.items():
        assert spliced[node_id]["class_type"] == each["class_type"]
        assert spliced[node_id]["inputs"].keys() == each["inputs"].keys()
        for name, value in each["inputs"].items():
            changed = spliced[node_id]["inputs"][name] != value
            owned = name == "stop_at_clip_layer" or DEFS[each["class_type"]].inputs[name].type in {
                "MODEL",
                "CLIP",
                "CONDITIONING",
            }
            assert owned or not changed, f"{node_id}.{name}"


@given(graphs(), splices)
def test_splices_keep_the_same_output_nodes(case: tuple[Workflow, Roles], splice: Splice) -> None:
    graph, roles = case
    spliced = splice(graph, roles)

    def outputs(workflow: Workflow) -> list[str]:
        return [node_id for node_id, each in workflow.items() if DEFS[each["class_type"]].is_output]

    assert outputs(spliced) == outputs(graph)


@given(graphs())
def test_a_splice_of_nothing_is_the_same_graph(case: tuple[Workflow, Roles]) -> None:
    graph, roles = case
    assert splice_loras(graph, roles, DEFS, []) == graph
    assert splice_controlnets(graph, roles, DEFS, []) == graph


@given(graphs(), st.integers(1, 24))
def test_clip_skip_twice_is_clip_skip_once(case: tuple[Workflow, Roles], layer: int) -> None:
    graph, _ = case
    once = splice_clip_skip(graph, DEFS, layer)
    assert splice_clip_skip(once, DEFS, layer) == once


@given(graphs(), loras.filter(bool))
def test_samplers_see_each_lora_once_in_order(
    case: tuple[Workflow, Roles], specs: list[LoraSpec]
) -> None:
    graph, roles = case
    spliced = splice_loras(graph, roles, DEFS, specs)
    expected = [(f"{lora.name}.safetensors", lora.strength) for lora in specs]

    def met(link: Link, above: list[tuple[str, float]]) -> None:
        each = spliced[link.node_id]
        if link.node_id not in graph:
            above = [(each["inputs"]["lora_name"], each["inputs"]["strength_model"]), *above]
        models = [up for name, up in links_of(each).items() if name.startswith("model")]
        for up in models:
            met(up, above)
        if not models:
            assert above == expected

    for sampler in roles.samplers:
        assert sampler.model is not None
        met(Link(*spliced[sampler.model.node_id]["inputs"][sampler.model.name]), [])


@given(graphs(), controlnets.filter(bool))
def test_samplers_see_each_controlnet_once_in_order(
    case: tuple[Workflow, Roles], specs: list[ControlNetSpec]
) -> None:
    graph, roles = case
    spliced = splice_controlnets(graph, roles, DEFS, specs)
    for sampler in roles.samplers:
        for target, kept in ((sampler.positive, "positive"), (sampler.negative, "negative")):
            if target is None:
                continue
            met = []
            link = Link(*spliced[target.node_id]["inputs"][target.name])
            while link.node_id not in graph:
                each = spliced[link.node_id]["inputs"]
                met.append((each["strength"], each["end_percent"]))
                assert link.slot == (kept == "negative")
                link = Link(*each[kept])
            assert met == [(spec.strength, spec.end) for spec in reversed(specs)]
            assert list(link) == graph[target.node_id]["inputs"][target.name]
