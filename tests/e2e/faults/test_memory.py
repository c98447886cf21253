"""No memory, a broken GPU, and a disk without room: tried again, or told in a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.conftest import Client, pictures, serving
from tests.e2e.faults.conftest import PACKS, FaultyWorker, faulty_graph
from tests.e2e.faults.test_isolation import shown, text_of
from tests.graphs import node
from tests.pictures import encoded
from tests.tools import require

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

DISK_MB = 48
KEY = "comfyui-of-the-operator"


def test_out_of_memory_frees_memory_and_retries(faulty: FaultyWorker) -> None:
    word = uuid.uuid4().hex
    graph = {
        "count": node("MeddleCount", text=word),
        "node": node("MeddleMemory", text=["count", 0]),
        "show": node("PreviewAny", source=["node", 0]),
    }
    # The first node ran again: what ComfyUI kept of it was given up as well.
    assert text_of(faulty, graph) == f"{word} 2"


@pytest.mark.parametrize("action", ["500", "cut", "hang"])
def test_a_failed_memory_release_still_retries(faulty: FaultyWorker, action: str) -> None:
    text = uuid.uuid4().hex
    with faulty.proxy.fault("POST", "/free", action) as rule:
        assert text_of(faulty, shown("MeddleMemory", text)) == text
    # A kept connection that breaks is opened again once.
    assert rule.seen in ({1, 2} if action == "cut" else {1})


def test_repeated_out_of_memory_suggests_remedies(faulty: FaultyWorker) -> None:
    job_id = faulty.submit(
        {"workflow": faulty_graph("FaultRaise", exception="OutOfMemoryError", message="by CUDA")}
    )
    assert faulty.failed(job_id) == (
        "OUT_OF_MEMORY: node fault (FaultRaise) ran out of GPU memory; ask for a smaller size, a smaller batch "
        "or an fp8 model; no other job was using memory"
    )
    assert faulty.proxy.requests["POST /free"] >= 1
    assert faulty.goes_on()


def test_a_lasting_gpu_error_restarts_comfyui(faulty: FaultyWorker) -> None:
    before = faulty.comfyui().pid
    message = "CUDA error: an illegal memory access was encountered"
    job_id = faulty.submit(
        {"workflow": faulty_graph("FaultRaise", exception="RuntimeError", message=message)}
    )
    failed = faulty.failed(job_id)
    assert failed.startswith(
        "GPU_FAULT: node fault (FaultRaise) met a GPU error that it cannot recover from"
    )
    assert faulty.goes_on()
    assert faulty.comfyui().pid != before


class TightWorker(Client):
    """A worker on a small disk, with the operator's key for paid services."""

    def __init__(self, client: Client, disk: Path) -> None:
        super().__init__(client.url, client.temp_dir)
        self.disk = disk

    @contextmanager
    def room(self, free_mb: float) -> Iterator[None]:
        """So much is left of the disk while the block lasts."""
        ballast = self.disk / "ballast"
        left = os.statvfs(self.disk)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(left.f_bavail * left.f_frsize - free_mb * 1e6))
        try:
            yield
        finally:
            ballast.unlink()


@pytest.fixture(scope="module")
def tight(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TightWorker]:
    require("mount")
    folder = tmp_path_factory.mktemp("tight")
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"a small disk wants root: {mounted.stderr!r}"
        )
    packs = folder / "packs.yaml"
    packs.write_text(json.dumps({"faults": {"custom_nodes": str(PACKS)}}))
    settings = {
        "TMPDIR": str(disk),
        "MIN_FREE_DISK_MB": "4",
        "COMFY_ARGS": f"--extra-model-paths-config {packs}",
        "API_NODES": "true",
        "MAX_BATCH_SIZE": "16",
        "COMFY_ORG_API_KEY": KEY,
        "LOG_LEVEL": "DEBUG",  # what a node prints is logged there only
    }
    try:
        with serving(model_root, folder, **settings) as client:
            yield TightWorker(client, disk)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fails_for_room(
    worker: TightWorker, free_mb: float, job_input: dict[str, Any], sentence: str
) -> None:
    """With so much room left a job fails with that sentence, and with more the next one is done."""
    with worker.room(free_mb):
        job = worker.runsync(job_input)
    assert job["error"].startswith(f"DISK_FULL: {sentence}"), job
    assert text_of(worker, shown("MeddleCount", uuid.uuid4().hex)).endswith(" 1")


def test_a_full_disk_is_reported_before_running(tight: TightWorker) -> None:
    sentence = (
        "the worker's disk has 2 MB free but needs 4 MB; give the endpoint a larger container disk"
    )
    fails_for_room(tight, 2, {"workflow": shown("MeddleCount")}, sentence)


def test_a_disk_filled_by_downloads_is_reported(tight: TightWorker) -> None:
    job_input = {"workflow": "img2img", "image": encoded(Image.effect_noise((2800, 2800), 100))}
    fails_for_room(tight, 6, job_input, "the worker's disk is full; send less at once")


@pytest.mark.parametrize(
    ("class_type", "inputs"),
    [
        ("SaveLatent", {"samples": ["latents", 0], "filename_prefix": "x"}),
        (
            "SaveAnimatedPNG",
            {"images": ["noise", 0], "filename_prefix": "x", "fps": 6.0, "compress_level": 0},
        ),
    ],
)
def test_a_disk_filled_by_saving_is_reported(
    tight: TightWorker, class_type: str, inputs: dict[str, Any]
) -> None:
    graph = {
        "latents": node("EmptyLatentImage", width=2048, height=2048, batch_size=16),
        "image": node("EmptyImage", width=1024, height=1024, batch_size=4, color=0x808080),
        "noise": node("ImageAddNoise", image=["image", 0], seed=1, strength=1.0),
        "save": node(class_type, **inputs),
    }
    fails_for_room(
        tight, 6, {"workflow": graph}, f"node save ({class_type}) filled the worker's disk"
    )


def test_a_picture_needs_no_disk(tight: TightWorker) -> None:
    graph = {
        "image": node("EmptyImage", width=2048, height=2048, batch_size=1, color=0x808080),
        "noise": node("ImageAddNoise", image=["image", 0], seed=1, strength=1.0),
        "save": node("SaveImage", images=["noise", 0], filename_prefix="x"),
    }
    with tight.room(5):
        assert pictures(tight.output({"workflow": graph}))[0].size == (2048, 2048)


def test_the_operators_key_is_used_and_hidden(tight: TightWorker) -> None:
    assert text_of(tight, shown("MeddlePay", "a fox")) == f"a fox costs {len(KEY)}"
    assert (
        text_of(tight, shown("MeddlePay", "a fox"), comfy_org_api_key="the-jobs-own")
        == "a fox costs 12"
    )
    failed = tight.runsync({"workflow": shown("MeddlePay", "fail")})
    environ = text_of(tight, shown("MeddleEnviron"))
    log = (tight.temp_dir / "worker.log").read_text(errors="replace")
    assert "the key is [hidden]" in log
    assert KEY not in json.dumps(failed) + environ + log


def test_enabled_paid_nodes_are_available(tight: TightWorker) -> None:
    graph = {
        "paid": node("OpenAIDalle3", prompt="a fox"),
        "show": node("PreviewAny", source=["paid", 0]),
    }
    answer = tight.output({"workflow": graph, "validate_only": True})
    assert answer["findings"] == []
