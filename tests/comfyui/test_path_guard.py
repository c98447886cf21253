"""ComfyUI itself keeps nodes from files that are not their job's, and lives through graphs it cannot run.

Each graph is queued straight to ComfyUI, past every check of the worker.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_worker.comfyui.execution import ExecutionResult
from comfy_worker.deadline import Deadline
from comfy_worker.errors import ExecutionFailed, WorkflowRefused
from comfy_worker.workflow.graph import Workflow
from tests.comfyui.conftest import RealComfyUI
from tests.core_nodes import node

pytestmark = pytest.mark.comfyui

SIZE = (24, 24)


def hidden(node_id: str, slot: int = 0) -> dict[str, Any]:
    """A link that ComfyUI's validation does not follow."""
    return {"__value__": [node_id, slot]}


# Ours; ComfyUI 0.33 refuses paths that lead out of its folders by itself, and folders that it does not list.
REFUSAL = re.compile("is not for this job|Invalid file path|Value not in list")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, "red").save(path)
    return path


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder of this machine with a picture and a text."""
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("quiet words\n" * 300, encoding="utf-8")
    return tmp_path


@pytest.fixture
def jobs(comfyui: RealComfyUI) -> Iterator[list[str]]:
    """The folders of two jobs, each with a picture in ComfyUI's input and output folder."""
    process = comfyui.running.process
    names = [uuid.uuid4().hex, uuid.uuid4().hex]
    paths = [
        picture(root / name / "a.png")
        for name in names
        for root in (process.input_dir, process.output_dir)
    ]
    yield names
    for path in paths:
        path.unlink()
        path.parent.rmdir()


def run(comfyui: RealComfyUI, workflow: Workflow, *own: str) -> ExecutionResult:
    return comfyui.running.execute(workflow, Deadline(), extra_data={"comfy_worker_folders": own})


def shown(comfyui: RealComfyUI, workflow: Workflow, *own: str) -> list[str]:
    """What PreviewAny shows of node 1."""
    texts: list[str] = run(comfyui, workflow, *own).outputs["show"]["text"]
    return texts


def preview(class_type: str, link: Any, **inputs: Any) -> Workflow:
    return {"1": node(class_type, **inputs), "show": node("PreviewAny", source=link)}


def refused(comfyui: RealComfyUI, workflow: Workflow, *own: str) -> str:
    """The error of a graph that ComfyUI must not run to its end; ComfyUI must live."""
    before = comfyui.running.process
    with pytest.raises((ExecutionFailed, WorkflowRefused)) as error:
        run(comfyui, workflow, *own)
    assert comfyui.running.process is before
    assert run(comfyui, preview("PrimitiveInt", ["1", 0], value=uuid.uuid4().int % 1000)).outputs
    return str(error.value)


@pytest.mark.parametrize(
    ("class_type", "name", "file"),
    [
        ("LoadImage", "image", "a.png"),
        ("LoadImageMask", "image", "a.png"),
        ("LoadVideo", "file", "a.txt"),
        ("LoadAudio", "audio", "a.txt"),
        ("LoadLatent", "latent", "a.txt"),
    ],
)
@pytest.mark.parametrize("climb", ["", "../" * 14])
def test_no_loader_reads_a_private_path(
    comfyui: RealComfyUI, private: Path, class_type: str, name: str, file: str, climb: str
) -> None:
    path = climb + str(private / file).lstrip("/" if climb else "")
    workflow = preview(
        class_type,
        hidden("1"),
        **{name: path},
        **({"channel": "red"} if "Mask" in class_type else {}),
    )
    if class_type == "LoadVideo":
        workflow["show"] = node("PreviewAny", source=["2", 0])
        workflow["2"] = node("GetVideoComponents", video=hidden("1"))
    assert REFUSAL.search(refused(comfyui, workflow))


def test_absolute_paths_fail_comfyui_validation(comfyui: RealComfyUI, private: Path) -> None:
    workflow = {
        "1": node("LoadImage", image=str(private / "a.png")),
        "2": node("PreviewImage", images=["1", 0]),
    }
    with pytest.raises(WorkflowRefused):
        run(comfyui, workflow)


@pytest.mark.parametrize(
    "class_type", ["LoadImageDataSetFromFolder", "LoadImageTextDataSetFromFolder"]
)
def test_no_node_lists_a_private_folder(
    comfyui: RealComfyUI, private: Path, class_type: str
) -> None:
    for folder in (str(private), "../" * 14 + str(private).lstrip("/")):
        assert REFUSAL.search(refused(comfyui, preview(class_type, ["1", False], folder=folder)))


@pytest.mark.parametrize(
    "folder", ["{other}", "../input/{other}", "{own}/../{other}", "../output/{other}"]
)
def test_no_node_lists_another_job(comfyui: RealComfyUI, jobs: list[str], folder: str) -> None:
    own, other = jobs
    path = folder.format(own=own, other=other)
    workflow = preview("LoadImageDataSetFromFolder", ["1", 0], folder=path)
    assert REFUSAL.search(refused(comfyui, workflow, own))


@pytest.mark.parametrize(
    "name", ["{other}/a.png", "{other}/a.png [output]", "./{other}/a.png", "{own}/../{other}/a.png"]
)
def test_no_loader_reads_another_job(comfyui: RealComfyUI, jobs: list[str], name: str) -> None:
    own, other = jobs
    workflow = preview("LoadImage", hidden("1"), image=name.format(own=own, other=other))
    assert REFUSAL.search(refused(comfyui, workflow, own))


def test_own_files_are_read(comfyui: RealComfyUI, jobs: list[str]) -> None:
    own = jobs[0]
    assert shown(comfyui, preview("LoadImage", ["1", 0], image=f"{own}/a.png"), own)
    assert shown(comfyui, preview("LoadImage", ["1", 0], image=f"{own}/a.png [output]"), own)
    assert shown(comfyui, preview("LoadImageDataSetFromFolder", ["1", 0], folder=own), own)


def test_listings_leave_other_jobs_out(comfyui: RealComfyUI, jobs: list[str]) -> None:
    """A node that reads each subfolder of the input folder finds its own alone."""
    workflow = preview("LoadImageTextDataSetFromFolder", ["1", 1], folder=".")
    (jobs_dir,) = {comfyui.input_dir}
    (jobs_dir / jobs[0] / "a.txt").write_text("mine", encoding="utf-8")
    (jobs_dir / jobs[1] / "a.txt").write_text("theirs", encoding="utf-8")
    try:
        texts = str(run(comfyui, workflow, jobs[0]).outputs)
    except (
        ExecutionFailed,
        WorkflowRefused,
    ) as error:  # 0.33 lists each job's folder as a choice, but not `.`
        texts = str(error)
    finally:
        for name in jobs:
            (jobs_dir / name / "a.txt").unlink()
    assert "theirs" not in texts
    assert "is not for this job" not in texts


IMAGE = node("EmptyImage", width=16, height=16, batch_size=1, color=0)
CHAIN = {str(i): node("ImageInvert", image=["e", 0], zzz=[str(i - 1), 0]) for i in range(1, 1500)}


@pytest.mark.parametrize(
    "workflow",
    [
        {"1": node("PreviewAny", source="a", zzz=["77", 0])},
        {"1": node("PreviewAny", source=hidden("77"))},
        {"1": node("PreviewAny", source="a"), "2": node("ImageInvert", image=["77", 0])},
        {"1": node("PreviewAny", source="a", zzz=["1", 0])},
        {"1": node("PreviewAny", source=hidden("3", -9)), "3": IMAGE},
        {"e": IMAGE, "0": IMAGE, **CHAIN, "o": node("PreviewAny", source=hidden("1499"))},
    ],
    ids=["undeclared", "wrapped", "idle", "self", "slot", "deep"],
)
def test_odd_graphs_fail_their_own_prompt(comfyui: RealComfyUI, workflow: Workflow) -> None:
    before = comfyui.running.process
    with contextlib.suppress(ExecutionFailed, WorkflowRefused):
        assert run(comfyui, workflow).outputs
    assert comfyui.running.process is before
    assert before.failure() is None
    assert shown(comfyui, preview("PrimitiveInt", ["1", 0], value=7)) == ["7"]


def test_results_are_kept_by_content(comfyui: RealComfyUI) -> None:
    """The short keys of the cache tell alike nodes from others, as the long ones do."""
    color = uuid.uuid4().int % 0xFFFFFF

    def workflow(name: str, width: int) -> Workflow:
        return {
            f"{name}1": node("EmptyImage", width=width, height=16, batch_size=1, color=color),
            f"{name}2": node("ImageInvert", image=[f"{name}1", 0]),
            "show": node("PreviewAny", source=[f"{name}2", 0]),
        }

    assert {"a1", "a2"} <= run(comfyui, workflow("a", 16)).node_ms.keys()
    assert {"b1", "b2"}.isdisjoint(run(comfyui, workflow("b", 16)).node_ms)
    assert {"b1", "b2"} <= run(comfyui, workflow("b", 24)).node_ms.keys()
