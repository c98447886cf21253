"""Models that a job brings, that a template lacks, and that lie on a network volume, through a whole worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import placeholders
from tests.e2e.conftest import Client, pictures, serving
from tests.graphs import node, txt2img
from tests.hub_server import TOKEN, HubServer, hub_server
from tests.pictures import encoded, photo

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

SMALL = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 2, "seed": 7}
PACK = """
class FromTheVolume:
    CATEGORY, RETURN_TYPES, FUNCTION, OUTPUT_NODE = "test", (), "run", True
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})

    def run(self):
        return {"ui": {"text": ["from the volume"]}}


NODE_CLASS_MAPPINGS = {"FromTheVolume": FromTheVolume}
"""
LAYOUTS = (
    "models",
    "ComfyUI/models",
    "",
    "runpod-slim/ComfyUI/models",
    "stable-diffusion-webui/models",
)


@pytest.fixture(scope="module")
def hub(model_root: Path) -> Iterator[HubServer]:
    with hub_server() as server:
        lora = (model_root / "loras" / placeholders.LORA).read_bytes()
        server.files |= {f"owner/{repo}/lora.safetensors": lora for repo in ("plain", "gated")}
        server.pages |= {f"/{name}.safetensors": lora for name in ("lora", "stuck", "stuck-too")}
        server.pages["/page.safetensors"] = b"<!DOCTYPE html><title>Sign in</title>"
        for folder, name in (
            ("checkpoints", placeholders.CHECKPOINT),
            ("controlnet", placeholders.CONTROLNET),
            ("embeddings", placeholders.EMBEDDING),
        ):
            server.files[f"owner/plain/{folder}.safetensors"] = (
                model_root / folder / name
            ).read_bytes()
        yield server


def lay_out_volume(volume: Path, model_root: Path) -> None:
    """A LoRA in each layout, a node pack, and a template whose checkpoint is nowhere yet."""
    for number, layout in enumerate(LAYOUTS):
        folder = volume / layout / ("Lora" if "webui" in layout else "loras")
        folder.mkdir(parents=True)
        (folder / f"layout-{number}.safetensors").symlink_to(
            model_root / "loras" / placeholders.LORA
        )
    (volume / "stable-diffusion-webui/models/Stable-diffusion").mkdir()
    (volume / "ComfyUI/custom_nodes").mkdir()
    (volume / "ComfyUI/custom_nodes/pack.py").write_text(PACK)
    workflows = volume / "ComfyUI/user/default/workflows"
    workflows.mkdir(parents=True)
    (workflows / "ours.json").write_text(
        json.dumps(txt2img(loader={"ckpt_name": "ours.safetensors"}))
    )
    need = {
        "folder": "checkpoints",
        "file": "ours.safetensors",
        "url": "hf:owner/plain/checkpoints.safetensors",
    }
    (workflows / "ours.params.json").write_text(json.dumps({"needs": [need]}))


@pytest.fixture(scope="module")
def client(
    hub: HubServer, model_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("on-demand")
    lay_out_volume(folder / "volume", model_root)
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "SD_MODEL": "",
        "VOLUME_DIR": str(folder / "volume"),
        "MODELS_CACHE_DIR": str(folder / "cache"),
        "MODELS_CACHE_GB": "0.5",
        "MODELS_ON_DEMAND": "true",
        "MODELS_ALLOWED_HOSTS": "huggingface.co, 127.0.0.1",
        "ALLOW_PRIVATE_URLS": "true",
        "WORKER_CONCURRENCY": "10",
        "MAX_BATCH_SIZE": "4",
    }
    with serving(model_root, folder, **settings) as started:
        yield started
    assert TOKEN not in (folder / "worker.log").read_text()


def with_lora(name: str) -> dict[str, Any]:
    return {"workflow": txt2img(), **SMALL, "loras": [{"name": name}]}


def status(client: Client, job_id: str, until: str) -> dict[str, Any]:
    """The job's status once it holds some text."""
    deadline = time.monotonic() + 120
    while until not in json.dumps(answer := client.get(f"status/{job_id}")):
        assert time.monotonic() < deadline, answer
        assert answer["status"] in ("IN_QUEUE", "IN_PROGRESS"), answer
        time.sleep(0.1)
    return answer


def test_ten_jobs_with_one_lora_are_one_download(client: Client, hub: HubServer) -> None:
    job_input = with_lora(f"{hub.url}/stuck.safetensors?token=hush")
    jobs = [client.post("run", {"input": job_input})["id"] for _ in range(10)]
    for job in jobs:
        progress = status(client, job, "downloading stuck-")
        assert progress["output"]["percent"] == 0
    hub.go_on.set()
    answers = [status(client, job, "COMPLETED")["output"] for job in jobs]
    hub.go_on.clear()
    assert len([request for request in hub.served() if "/stuck." in request.path]) == 1
    wanted = pictures(client.output(with_lora(placeholders.LORA)))[0].tobytes()
    assert {pictures(answer)[0].tobytes() for answer in answers} == {wanted}
    assert "hush" not in json.dumps(answers)
    assert "hush" not in (client.temp_dir / "worker.log").read_text()


def test_jobs_may_bring_models_in_every_input(client: Client, hub: HubServer) -> None:
    checkpoint = "hf:owner/plain/checkpoints.safetensors"
    text = "a (embedding:hf:owner/plain/embeddings.safetensors:1.2), b"
    graph = txt2img(prompt=text, loader={"ckpt_name": checkpoint})
    control = {
        "model": "hf:owner/plain/controlnet.safetensors",
        "image": encoded(photo()),
        "type": "canny",
    }
    lora = {"name": "https://huggingface.co/owner/gated/blob/main/lora.safetensors"}
    result = client.output(
        {
            "workflow": graph,
            "width": 64,
            "height": 64,
            "steps": 1,
            "seed": 1,
            "loras": [lora],
            "controlnets": [control],
            "overrides": {"loader.ckpt_name": checkpoint},
            "negative_prompt": "embedding:hf:owner/plain/embeddings.safetensors",
        }
    )
    assert len(pictures(result)) == 1
    cached = {path.parent.name for path in (client.temp_dir / "cache").glob("*/*.safetensors")}
    assert cached >= {"checkpoints", "controlnet", "embeddings", "loras"}
    assert result["parameters"]["prompt"].startswith("a (embedding:embeddings-")
    log = (client.temp_dir / "worker.log").read_text()
    assert "does not exist, ignoring" not in log


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "https://evil.example/x.safetensors",
            "this worker does not download models from evil.example; allowed hosts:",
        ),
        (
            "hf:owner/plain/x.pt",
            "this worker downloads only safetensors files, since a .pt file may contain programs",
        ),
        ("hf:owner", "a file of the hub is written hf:owner/repo/file"),
        ("hf:owner/plain/none.safetensors", "the repository owner/plain has no such file"),
        (
            "WEB/page.safetensors?token=hush",
            "page.safetensors is not a safetensors file but a web page",
        ),
    ],
)
def test_unavailable_models_are_explained(
    client: Client, hub: HubServer, word: str, sentence: str
) -> None:
    answer = client.runsync(with_lora(word.replace("WEB", hub.url)))
    assert answer["status"] == "FAILED"
    assert answer["error"].startswith("MODEL_NOT_FETCHED: ")
    assert sentence in answer["error"]
    assert "hush" not in json.dumps(answer["error"])


def test_a_job_that_is_cancelled_stops_fetching(client: Client, hub: HubServer) -> None:
    job = client.post("run", {"input": with_lora(f"{hub.url}/stuck-too.safetensors")})["id"]
    status(client, job, "downloading stuck-too")
    client.post(f"cancel/{job}")
    assert status(client, job, "CANCELLED")["status"] == "CANCELLED"
    assert not list((client.temp_dir / "cache").glob("loras/stuck-too*"))


def test_a_volume_template_downloads_its_models(client: Client, hub: HubServer) -> None:
    checked = client.output({"workflow": "ours", **SMALL, "validate_only": True})
    assert [finding["type"] for finding in checked["findings"]] == ["missing_model"]
    result = client.output({"workflow": "ours", **SMALL})
    assert result["parameters"]["checkpoint"] == "ours.safetensors"
    assert len(pictures(result)) == 1


def test_volume_models_and_packs_are_used(client: Client) -> None:
    for number in range(len(LAYOUTS)):
        checked = client.output(
            {**with_lora(f"layout-{number}.safetensors"), "validate_only": True}
        )
        assert checked["findings"] == []
    result = client.output({"workflow": {"1": node("FromTheVolume")}})
    assert [text["data"] for text in result["texts"]] == ["from the volume"]


def test_log_and_errors_name_the_searched_folders(client: Client, model_root: Path) -> None:
    volume = client.temp_dir / "volume"
    log = (client.temp_dir / "worker.log").read_text()
    assert f"loras: {model_root}/loras (" in log
    assert f"{volume}/models/loras (1)" in log
    assert f"the network volume has {volume}/ComfyUI/custom_nodes" in log
    # A client reads what a folder is, and not where this machine has it.
    folders = ["volume", "volume/models", "volume/ComfyUI/models", "models"]
    in_graph = txt2img(sampler={"model": ["lora", 0]})
    in_graph["lora"] = node(
        "LoraLoaderModelOnly", model=["loader", 0], lora_name="none.pt", strength_model=1.0
    )
    for job_input in (with_lora("none.pt"), {"workflow": in_graph}):
        answer = client.runsync(job_input)
        assert answer["error"].startswith("MODEL_NOT_FOUND: ")
        assert "volume/ComfyUI/models/loras" in answer["error"]
        assert str(client.temp_dir) not in json.dumps(answer)
        assert {f"{folder}/loras" for folder in folders} <= set(
            answer["output"]["details"][0]["looked_in"]
        )
