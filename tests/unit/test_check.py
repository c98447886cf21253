"""What is told of a workflow that would be refused; that it would be is proven against ComfyUI itself."""

from __future__ import annotations

import time
from typing import Any

import pytest

from comfy_worker.errors import InvalidMedia, InvalidWorkflow, ModelNotFound, NodeNotInstalled
from comfy_worker.workflow.check.preflight import Checked, check, is_stale, refusal
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_files import CheckContext, ModelFile, model_files
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.parse import MAX_NODES
from tests.base_graphs import node


def declared(required: dict[str, Any], *outputs: str, is_output: bool = False) -> dict[str, Any]:
    return {"input": {"required": required}, "output": list(outputs), "output_node": is_output}


DEFS = NodeDefs(
    {
        "Loader": declared({"lora_name": [["style.safetensors", "sub/face.safetensors"]]}, "IMAGE"),
        "NewLoader": declared(
            {"model_name": ["COMBO", {"options": []}], "mode": ["COMBO", {"options": ["a"]}]},
            "IMAGE",
        ),
        "LoadImage": declared({"image": [["there.png"], {"image_upload": True}]}, "IMAGE", "MASK"),
        "Blur": declared({"image": ["IMAGE"], "radius": ["INT", {"min": 1, "max": 9}]}, "IMAGE"),
        "Save": declared({"images": ["IMAGE"]}, is_output=True),
    }
)
URL = "https://host/ghost.safetensors"


def saved(**nodes: dict[str, Any]) -> Workflow:
    """Nodes, the last of which is saved."""
    return {**nodes, "save": node("Save", images=[list(nodes)[-1], 0])}


def found(workflow: Workflow, **known: Any) -> Checked:
    return check(workflow, DEFS, CheckContext(**known))


def test_a_missing_models_error_names_folder_source_nearest() -> None:
    workflow = saved(a=node("Loader", lora_name="sub/faces.safetensors"))
    needs = (ModelFile("loras", "faces.safetensors", URL),)

    def searched(folder: str) -> list[str]:
        return [f"/a/{folder}", f"/b/{folder}"]

    (finding,) = found(
        workflow, needs=needs, listed={"loras/sub/faces.safetensors"}, searched=searched
    ).findings
    assert finding == {
        "node_id": "a",
        "title": "Loader",
        "class_type": "Loader",
        "input": "lora_name",
        "given": "sub/faces.safetensors",
        "type": "missing_model",
        "problem": "lora_name 'sub/faces.safetensors' is not installed (looked in /a/loras, /b/loras)",
        "would_do": "name one that is there, such as sub/face.safetensors, or ask the operator to put it into "
        f"models/loras, from {URL}",
        "folder": "loras",
        "nearest": ["sub/face.safetensors"],
        "url": URL,
        "in_models_txt": True,
        "looked_in": ["/a/loras", "/b/loras"],
    }
    assert isinstance(refusal([finding]), ModelNotFound)
    assert is_stale([finding])


def test_a_listed_model_gets_its_own_command() -> None:
    workflow = saved(a=node("Loader", lora_name="ghost.safetensors"))
    known = {
        "listed": {"loras/ghost.safetensors"},
        "commands": {"loras/ghost.safetensors": "flux-dev"},
    }
    (finding,) = found(workflow, **known, accepts_urls=True).findings
    assert finding["would_do"].endswith(
        ", or give its URL, or ask the operator to run `python3 -m comfy_setup models --only flux-dev`"
    )


def test_a_missing_checkpoint_is_told_those_installed() -> None:
    files = ["placeholder.safetensors", "a.safetensors", "b.safetensors"]
    info = {"CheckpointLoaderSimple": declared({"ckpt_name": [files]}, is_output=True)}
    workflow = {"1": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned.safetensors")}
    (finding,) = check(workflow, NodeDefs(info), CheckContext(has_default=True)).findings
    assert finding["would_do"] == (
        "name an installed one as `checkpoint`: a.safetensors, b.safetensors, or ask the operator to put it into "
        "models/checkpoints or to set SD_MODEL to an installed one"
    )


def test_one_error_has_all_findings_and_worst_code() -> None:
    ghost, absent = (
        node("Loader", lora_name="ghost.safetensors"),
        node("LoadImage", image="absent.png"),
    )
    wrong, strange = node("Blur", image=["a", 0], radius=0), node("Blurr", image=["a", 0])
    cases = [
        ([ghost], ModelNotFound),
        ([absent], InvalidMedia),
        ([absent, ghost], ModelNotFound),
        ([ghost, wrong], InvalidWorkflow),
        ([ghost, wrong, strange], NodeNotInstalled),
    ]
    for nodes, error in cases:
        workflow: Workflow = {}
        for letter, graph_node in zip("abc", nodes, strict=False):
            workflow |= {letter: graph_node, f"save {letter}": node("Save", images=[letter, 0])}
        raised = refusal(found(workflow).findings)
        assert type(raised) is error
        assert len(raised.details) == len(nodes)
    assert str(raised).startswith(
        "node c (Blurr): this ComfyUI has no Blurr; install the node pack that brings it"
    )
    assert str(raised).endswith("or use Blur (2 more in the details)")
    (unknown,) = (
        finding
        for finding in found(workflow, packs={"Blurr": "pack-of-blurs"}).findings
        if finding["node_id"] == "c"
    )
    assert (unknown["pack"], unknown["nearest"]) == ("pack-of-blurs", ["Blur"])


def test_input_files_are_found_despite_old_lists() -> None:
    workflow = saved(a=node("LoadImage", image="new.png"))
    assert [finding["type"] for finding in found(workflow).findings] == ["missing_input_file"]
    assert found(workflow, has_input=lambda name: name == "new.png").findings == ()


def test_custom_validation_is_left_to_the_class() -> None:
    info = {"Own": declared({"x": [["a"]], "y": ["INT", {"max": 1}]}, is_output=True)}
    workflow = {"1": node("Own", x="b", y=5)}
    for validated, names in (
        ({}, {"x", "y"}),
        ({"Own": ["cls", "x"]}, {"y"}),
        ({"Own": ["*"]}, set()),
    ):
        checked = check(workflow, NodeDefs(info, validated), CheckContext())
        assert {finding["input"] for finding in checked.findings} == names


def test_newer_list_form_warns_except_for_models() -> None:
    workflow = saved(a=node("NewLoader", model_name="b.pth", mode="c"))
    checked = found(workflow)
    assert [(finding["type"], finding["input"]) for finding in checked.findings] == [
        ("missing_model", "model_name")
    ]
    assert checked.warnings == ("mode of node a (NewLoader) is 'c', none of its choices",)


def test_nodes_that_no_output_needs_are_a_warning() -> None:
    workflow = saved(a=node("LoadImage", image="there.png")) | {"idle": node("Blur", radius="many")}
    checked = found(workflow)
    warned = ("no output needs node idle (Blur): ComfyUI will not run what no output needs",)
    assert (checked.findings, checked.warnings) == ((), warned)
    checked = found(workflow | {"ghost": node("Ghost")})
    assert ([finding["node_id"] for finding in checked.findings], checked.warnings) == (
        ["ghost"],
        warned,
    )


def test_no_output_is_a_finding_of_the_whole() -> None:
    (finding,) = found({"a": node("LoadImage", image="there.png")}).findings
    assert (finding["node_id"], finding["type"]) == (None, "no_output")
    assert (
        str(refusal([finding]))
        == "the workflow has no output node; end it in a node such as SaveImage"
    )


def test_model_files_combine_graph_and_metadata() -> None:
    workflow = saved(a=node("Loader", lora_name="style.safetensors"))
    needs = (
        ModelFile("loras", "style.safetensors", URL),
        ModelFile("vae", "own.safetensors"),
        ModelFile("vae", "listed.pt"),
    )
    assert (
        model_files(workflow, DEFS, CheckContext(needs=needs, listed={"vae/listed.pt"}))
        == needs[:2]
    )


@pytest.mark.parametrize("closed", [False, True])
def test_the_longest_chain_is_checked_soon(closed: bool) -> None:
    last = MAX_NODES - 2
    chain = {str(i): node("Blur", image=[str(i - 1), 0], radius=1) for i in range(1, last + 1)}
    chain["0"] = (
        node("Blur", image=[str(last), 0], radius=1)
        if closed
        else node("LoadImage", image="there.png")
    )
    began = time.process_time()
    types = [
        finding["type"]
        for finding in found({**chain, "save": node("Save", images=[str(last), 0])}).findings
    ]
    assert types == (["cycle"] if closed else [])
    assert time.process_time() - began < 5
