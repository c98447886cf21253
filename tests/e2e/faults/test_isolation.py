"""Job B is written to find what job A sent, made, said and paid with, and gets nothing."""

from __future__ import annotations

import base64
import io
import json
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
import requests
from PIL import Image

from tests.e2e.conftest import Client, pictures
from tests.e2e.faults.conftest import FaultyWorker, wait_until
from tests.graphs import node
from tests.pictures import encoded

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

SECRET = "the-secret-of-a"
RED = "data:image/png;base64," + encoded(Image.new("RGB", (64, 64), "red"))


@contextmanager
def victim(faulty: FaultyWorker) -> Iterator[tuple[str, str]]:
    """A job that runs meanwhile, with a picture that was sent and one that was saved: its id and its folder."""
    graph = {
        "load": node("LoadImage", image=RED),
        "early": node("SaveImage", images=["load", 0], filename_prefix="secret"),
        "wait": node("FaultWait", image=["load", 0]),
        "save": node("SaveImage", images=["wait", 0], filename_prefix="secret"),
    }
    job_id = faulty.submit({"workflow": graph})
    try:
        faulty.running("FaultWait")
        (file,) = input_dir(faulty).glob("*/*.png")
        yield job_id, file.parent.name
    finally:
        faulty.post(f"cancel/{job_id}")


def input_dir(faulty: FaultyWorker) -> Path:
    command = faulty.comfyui().cmdline()
    return Path(command[command.index("--input-directory") + 1])


def shown(class_type: str, text: str = "x", **inputs: Any) -> dict[str, Any]:
    """A graph that shows what a node tells of a text."""
    return {
        "node": node(class_type, text=text, **inputs),
        "show": node("PreviewAny", source=["node", 0]),
    }


def text_of(worker: Client, graph: dict[str, Any], **job_input: Any) -> str:
    texts = worker.output({"workflow": graph, **job_input})["texts"]
    return str(next(text["data"] for text in texts if text["node_id"] == "show"))


def reading(class_type: str, key: str, value: Any) -> dict[str, Any]:
    """A graph that shows what a node reads."""
    return {
        "read": node(class_type, **{key: value}),
        "show": node("PreviewAny", source=["read", 0]),
    }


FILES = [
    "{name}/0_image.png",
    "../input/{name}/0_image.png",
    "{root}/input/{name}/0_image.png",
    "{name}",
]
FOLDERS = [
    "{name}",
    ".",
    "",
    "..",
    "{root}/input",
    "{root}/input/{name}",
    "../output/{name}",
    "./{name}",
]
ATTACKS = [
    *(
        (class_type, key, path)
        for class_type, key in (("LoadImage", "image"), ("LoadAudio", "audio"))
        for path in FILES
    ),
    ("LoadImage", "image", "{name}/secret_00001_.png [output]"),
    ("LoadImage", "image", {"__value__": "{name}/0_image.png"}),
    ("LoadImageMask", "image", "{name}/0_image.png"),
    ("LoadImageOutput", "image", "{name}/secret_00001_.png [output]"),
    ("LoadVideo", "file", "{name}/0_image.png"),
    ("LoadLatent", "latent", "{name}/0_image.png"),
    ("Load3D", "model_file", "{name}/0_image.png"),
    *(("LoadImageDataSetFromFolder", "folder", path) for path in FOLDERS),
    *(("LoadImageTextDataSetFromFolder", "folder", path) for path in FOLDERS),
    ("LoadTrainingDataset", "folder_name", "../{name}"),
    ("LoadTrainingDataset", "folder_name", "{root}/output/{name}"),
]


def filled(value: Any, **names: str) -> Any:
    if isinstance(value, dict):
        return {key: filled(part, **names) for key, part in value.items()}
    return value.format(**names)


def test_nodes_cannot_read_another_jobs_files(faulty: FaultyWorker) -> None:
    with victim(faulty) as (job_id, name):
        for class_type, key, value in ATTACKS:
            attack = filled(value, name=name, root=str(input_dir(faulty).parent))
            job = faulty.runsync({"workflow": reading(class_type, key, attack)})
            assert job["error"].startswith(("INVALID_VALUE: ", "INVALID_MEDIA: ")), job
            assert name not in str(job), "what ComfyUI lists is not told"
            check = {"workflow": reading(class_type, key, attack), "validate_only": True}
            checked = faulty.runsync(check)
            if "error" not in checked:
                findings = checked["output"]["findings"]
                assert key in [finding["input"] for finding in findings], findings
                assert name not in str([finding | {"given": ""} for finding in findings]), findings
            else:
                assert checked["error"] == job["error"], checked
        for class_type, key in (("LoadImage", "image"), ("LoadImageDataSetFromFolder", "folder")):
            joined = node("StringConcatenate", string_a=name[:5], string_b=name[5:], delimiter="")
            graph = {"joined": joined, **reading(class_type, key, ["joined", 0])}
            job = faulty.runsync({"workflow": graph})
            sentence = (
                f"INVALID_VALUE: input {key} of node read ({class_type}) names a file, but another"
            )
            assert job["error"].startswith(sentence), job
        image = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
        save = node("SaveImage", images=["image", 0], filename_prefix=f"../{name}/x")
        job = faulty.runsync({"workflow": {"image": image, "save": save}})
        assert job["error"].startswith(
            "INVALID_VALUE: filename_prefix of node save must be a text that stays"
        ), job
        assert faulty.get(f"status/{job_id}")["status"] == "IN_PROGRESS", (
            "job A was there all the time"
        )


def test_graph_reading_nodes_show_no_other_jobs(faulty: FaultyWorker) -> None:
    assert SECRET in text_of(faulty, {**shown("MeddleSee"), "a": node("PreviewAny", source=SECRET)})
    seen = text_of(faulty, shown("MeddleSee"))
    assert "MeddleSee" in seen
    assert SECRET not in seen


def test_a_node_remembers_no_other_job(faulty: FaultyWorker) -> None:
    assert text_of(faulty, shown("MeddleRemember", SECRET)) == SECRET
    assert text_of(faulty, shown("MeddleRemember", "of b")) == "of b"


def test_pure_node_results_are_kept(faulty: FaultyWorker) -> None:
    text = uuid.uuid4().hex
    assert [text_of(faulty, shown("MeddleCount", text)) for _ in range(2)] == [f"{text} 1"] * 2


def test_paid_results_stay_private_without_the_key(faulty: FaultyWorker) -> None:
    key = f"comfyui-{uuid.uuid4().hex}"
    assert (
        text_of(faulty, shown("MeddlePay", "a fox"), comfy_org_api_key=key)
        == f"a fox costs {len(key)}"
    )
    other = faulty.runsync({"workflow": shown("MeddlePay", "a fox")})
    assert other["error"] == (
        "INVALID_INPUT: node node (MeddlePay) calls a paid service of comfy.org; send a key for it as "
        "comfy_org_api_key, or set COMFY_ORG_API_KEY on the endpoint"
    )
    assert (
        text_of(faulty, shown("MeddlePay", "a fox"), comfy_org_api_key="another-key")
        == "a fox costs 11"
    )
    failed = faulty.runsync({"workflow": shown("MeddlePay", "fail"), "comfy_org_api_key": key})
    assert (
        failed["error"]
        == "EXECUTION_FAILED: node node (MeddlePay) failed with ValueError: 401: [hidden] has no credits"
    )
    assert key not in json.dumps(failed["output"])
    assert key not in faulty.log


def test_a_key_is_in_no_picture(faulty: FaultyWorker) -> None:
    graph = {
        "pay": node("MeddlePay", text="a fox"),
        "show": node("PreviewAny", source=["pay", 0]),
        "image": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "save": node("SaveImage", images=["image", 0], filename_prefix="x"),
    }
    result = faulty.output({"workflow": graph, "comfy_org_api_key": "comfyui-in-no-picture"})
    (picture,) = pictures(result)
    assert "MeddlePay" in picture.info["prompt"]
    assert "comfyui-in-no-picture" not in json.dumps(result) + str(picture.info)


def test_refused_values_are_answered_but_not_logged(faulty: FaultyWorker) -> None:
    text = f"words-{uuid.uuid4().hex}-of-a-client"
    job = faulty.runsync({"workflow": shown("MeddleRefuse", text)})
    assert job["error"].startswith("WORKFLOW_REFUSED: "), job
    assert f"not {text}" in job["error"]
    assert text not in faulty.log


def test_comfyui_has_none_of_the_workers_keys(faulty: FaultyWorker) -> None:
    environ = json.loads(text_of(faulty, shown("MeddleEnviron")))
    assert "COMFY_WORKER_MODEL_ROOTS" in environ
    assert "RUNPOD_AI_API_KEY" not in environ


def test_misplaced_files_are_deleted_with_the_job(faulty: FaultyWorker) -> None:
    job = faulty.runsync({"workflow": shown("MeddleStray")})
    assert "nothing to tell" in job["error"]
    parent = input_dir(faulty).parent
    wait_until(lambda: not list(parent.rglob("stray.txt")))


def test_files_of_comfyuis_other_clients_stay(faulty: FaultyWorker) -> None:
    command = faulty.comfyui().cmdline()
    url = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
    picture = io.BytesIO(base64.b64decode(RED.partition(",")[2]))
    upload = requests.post(f"{url}/upload/image", files={"image": ("a.png", picture)}, timeout=30)
    graph = {
        "load": node("LoadImage", image=upload.json()["name"]),
        "save": node("SaveImage", images=["load", 0], filename_prefix="theirs/a"),
        "preview": node("PreviewImage", images=["load", 0]),
    }

    def run() -> list[str]:
        """The addresses of the pictures of another client's prompt."""
        answer = requests.post(f"{url}/prompt", json={"prompt": graph}, timeout=30).json()
        route = f"{url}/history/{answer['prompt_id']}"
        entry = wait_until(lambda: requests.get(route, timeout=30).json())
        (outputs,) = (found["outputs"] for found in entry.values())
        images = [image for output in outputs.values() for image in output["images"]]
        return [f"{url}/view?{urlencode(image)}" for image in images]

    views = run()
    time.sleep(1.1)  # the worker leaves newer files to the next job that ends
    job = faulty.runsync({"workflow": shown("MeddleStray")})
    assert "nothing to tell" in job["error"]
    faulty.runsync({"workflow": shown("MeddleCount")})
    wait_until(lambda: not list(input_dir(faulty).parent.glob("*/stray.txt")))
    assert len(views) == 2
    for view in views:
        assert requests.get(view, timeout=30).content.startswith(b"\x89PNG")
    graph["save"]["inputs"]["filename_prefix"] = "theirs/b"
    assert run(), "the upload is gone"
    requests.post(f"{url}/history", json={"clear": True}, timeout=30)
    root = input_dir(faulty).parent
    for left in (root / "input" / "a.png", *(root / "temp").iterdir()):
        left.unlink()
    shutil.rmtree(root / "output" / "theirs")


def test_a_total_crash_leaves_no_job_data(
    faulty: FaultyWorker,
) -> None:
    before = faulty.comfyui()
    root, raw = input_dir(faulty).parent, Path(before.environ()["COMFY_WORKER_RAW_DIR"])
    url = before.cmdline()[before.cmdline().index("--port") + 1]
    assert {at.laddr.ip for at in before.net_connections() if at.status == psutil.CONN_LISTEN} == {
        "127.0.0.1"
    }
    faulty.submit({"workflow": {**shown("MeddleCount"), "load": node("LoadImage", image=RED)}})
    guard = before.parent()
    assert guard is not None
    for process in (guard, faulty.handler(), before):
        process.send_signal(signal.SIGKILL)
    after = wait_until(lambda: (found := faulty.comfyui()).pid != before.pid and found)
    wait_until(lambda: not root.exists() and not raw.exists())
    assert after.cmdline()[after.cmdline().index("--port") + 1] != url
    assert text_of(faulty, shown("MeddleCount", "again")) == "again 1"
