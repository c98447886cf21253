"""Clients written for other workers: their requests and their code, as they are but for host, steps and size.

A row is what one document for users of another worker shows, and the ``RESPONSE_FORMAT`` that its client expects.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests import placeholders
from tests.e2e.conftest import Client, pictures, serving
from tests.file_server import file_server
from tests.graphs import node, txt2img
from tests.pictures import encoded, photo

pytestmark = [pytest.mark.e2e, pytest.mark.comfyui]

SMALL: dict[str, Any] = {"width": 64, "height": 64}
PIXAR = {
    "prompt": "A cute fluffy white dog in the style of a Pixar animation 3D drawing.",
    **SMALL,
    "steps": 2,
}

needs_curl = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="curl and jq are needed"
)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(command: str, folder: Path) -> str:
    return run(["bash", "-ec", f"set -o pipefail\n{command}"], folder)


def opened(path: Path) -> Image.Image:
    image: Image.Image
    with Image.open(path) as image:
        image.load()
    return image


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


RUN = """\
curl -s -X POST {url}/run \\
-H 'Content-Type: application/json' \\
-H 'Authorization: Bearer [Your API Key]' \\
-d '{body}' > started.json
id=$(jq -r .id started.json)
test "$(jq -r .status started.json)" = IN_QUEUE
for _ in $(seq 200); do
curl -s {url}/status/$id \\
-H 'Content-Type: application/json' \\
-H 'Authorization: Bearer [Your API Key]' | jq . > output.json
case "$(jq -r .status output.json)" in IN_QUEUE|IN_PROGRESS) sleep 0.1 ;; *) break ;; esac
done
"""


@needs_curl
def test_curl_jq_and_base64_read_image_base64(model_root: Path, tmp_path: Path) -> None:
    with serving(model_root, tmp_path, RESPONSE_FORMAT="image_base64") as client:
        body = json.dumps({"input": {"prompt": "cyberpunk city", **SMALL, "steps": 2}})
        shell(
            f"""\
curl -s -X POST {client.url}/runsync \\
-H "Content-Type: application/json" \\
-H "Authorization: YOUR_RUNPOD_API_KEY" \\
-d '{body}' \\
| jq -r '.output.image_base64' \\
| base64 -d > image.png""",
            tmp_path,
        )
        assert (opened(tmp_path / "image.png").format, opened(tmp_path / "image.png").size) == (
            "PNG",
            (64, 64),
        )
        example = {"prompt": "a futuristic cyberpunk city", **SMALL, "steps": 3, "guidance": 7.5}
        output = client.output(example)
        assert decoded(output["image_base64"]).size == (64, 64)
        assert set(output) == {"image_base64", "seed"}


SAVE_IMAGE = """\
import json
import base64
def decode_and_save_image(json_file_path, output_image_path):
    try:
        # Reading the JSON file
        with open(json_file_path, "r") as file:
            data = json.load(file)
        # Extracting the base64 encoded image data
        base64_image = data["output"][0]["image"]
        # Decode the Base64 string
        decoded_image_data = base64.b64decode(base64_image)
        # Writing the decoded data to an image file
        with open(output_image_path, "wb") as image_file:
            image_file.write(decoded_image_data)
        print(f"Image successfully decoded and saved as '{output_image_path}'.")
    except FileNotFoundError:
        print(
            "File not found. Please ensure the JSON file exists in the specified path."
        )
    except KeyError as e:
        print(f"Error in JSON structure: {e}")
    except Exception as e:
        print(f"An error occurred: {e}")
# Usage
json_file_path = "output.json" # Path to your JSON file
output_image_path = "decoded_image.png" # Desired path for the output image
decode_and_save_image(json_file_path, output_image_path)
"""


@needs_curl
def test_output_0_image_with_response_format_image_list(model_root: Path, tmp_path: Path) -> None:
    with serving(model_root, tmp_path, RESPONSE_FORMAT="image_list") as client:
        shell(RUN.format(url=client.url, body=json.dumps({"input": PIXAR})), tmp_path)
        assert "successfully decoded" in run([sys.executable, "-c", SAVE_IMAGE], tmp_path)
        assert opened(tmp_path / "decoded_image.png").size == (64, 64)
        (entry,) = json.loads((tmp_path / "output.json").read_text())["output"]
        assert isinstance(entry["seed"], int)


# `import time` is missing in the document.
GENERATE = """\
import time
import requests
import json
import base64
from PIL import Image
import io

API_KEY = "YOUR_API_KEY"
ENDPOINT_ID = "YOUR_ENDPOINT_ID"

def generate_image(prompt):
    url = f"URL/run"

    payload = {
        "input": {
            "prompt": prompt,
            "negative_prompt": "ugly, deformed, bad anatomy, blurry",
            "num_inference_steps": 2,
            "guidance_scale": 7.5,
            "width": 64,
            "height": 64
        }
    }

    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {API_KEY}"
    }

    response = requests.post(url, headers=headers, json=payload)
    response_json = response.json()

    # Get job ID
    job_id = response_json.get("id")

    # Check status and get result when complete
    status_url = f"URL/status/{job_id}"

    while True:
        status_response = requests.get(status_url, headers=headers)
        status_data = status_response.json()

        if status_data.get("status") == "COMPLETED":
            # Get the base64 image data
            image_data = status_data.get("output", [])[0]
            # Convert base64 to image
            image = Image.open(io.BytesIO(base64.b64decode(image_data)))
            # Save the image
            image.save("generated_image.png")
            print("Image generated successfully!")
            break

        time.sleep(2)  # Poll every 2 seconds

# Generate an image
generate_image("A photorealistic cat astronaut floating in space, 4k, detailed")
"""


@pytest.fixture(scope="module")
def base64_list(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A worker for the clients of that document, with settings that it names; its pictures lie on this machine."""
    settings = {
        "RESPONSE_FORMAT": "base64_list",
        "PRECISION": "fp32",
        "ENABLE_XFORMERS": "true",
        "ALLOW_PRIVATE_URLS": "true",
    }
    with serving(model_root, tmp_path_factory.mktemp("base64_list"), **settings) as client:
        yield client


def test_output_0_is_base64_with_base64_list(base64_list: Client, tmp_path: Path) -> None:
    output = run([sys.executable, "-c", GENERATE.replace("URL", base64_list.url)], tmp_path)
    assert "Image generated successfully!" in output
    assert opened(tmp_path / "generated_image.png").size == (64, 64)


def test_the_settings_of_that_document_reach_comfyui(base64_list: Client) -> None:
    commands = [set(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert any({"--fp32-unet", "--fp32-text-enc", "--fp32-vae"} <= command for command in commands)
    assert "xformers is not installed" in (base64_list.temp_dir / "worker.log").read_text()


@pytest.fixture(scope="module")
def pictures_host() -> Iterator[str]:
    with file_server() as server:
        yield f"http://localhost:{server.port}"


@pytest.mark.parametrize(
    "request_of",
    [
        lambda host: {
            "prompt": "A castle in a magical forest",
            "negative_prompt": "deformed, ugly, bad anatomy",
            "image": f"{host}/input-image.jpg",
            "strength": 0.75,
            "num_inference_steps": 3,
            "guidance_scale": 7.5,
        },
        lambda host: {
            "prompt": "A fantasy landscape with mountains",
            "controlnet": {
                "type": "canny",
                "image": f"{host}/canny-image.jpg",
                "conditioning_scale": 0.8,
            },
            **SMALL,
            "num_inference_steps": 2,
        },
    ],
    ids=["image-to-image", "controlnet"],
)
def test_pictures_behind_urls_with_response_format_base64_list(
    base64_list: Client, pictures_host: str, request_of: Callable[[str], dict[str, Any]]
) -> None:
    output: Any = base64_list.output(request_of(pictures_host))
    assert decoded(output[0]).size == (64, 64)


DECODE_IMAGE = """\
import base64
from PIL import Image
import io
import os
import json

def decode_json_and_save_image(json_filepath, output_filename="decoded_image.png"):
    try:
        with open(json_filepath, 'r') as f:
            data = json.load(f)

        # Extract the base64 string from the nested structure
        base64_url = data.get("output", {}).get("image_url")

        if not base64_url:
            print("Error: 'image_url' not found in the JSON file.")
            return

        # Remove data URI prefix if present
        if "," in base64_url:
            _, encoded_data = base64_url.split(",", 1)
        else:
            encoded_data = base64_url

        # Decode base64 to bytes
        image_data = base64.b64decode(encoded_data)
        image_stream = io.BytesIO(image_data)
        image = Image.open(image_stream)
        image.save(output_filename)

        print(f"Image successfully saved as '{output_filename}'")
        print(f"Image path: {os.path.abspath(output_filename)}")

    except FileNotFoundError:
        print(f"Error: The file '{json_filepath}' was not found.")
    except json.JSONDecodeError:
        print(f"Error: Could not decode JSON from the file '{json_filepath}'.")
    except base64.binascii.Error as e:
        print(f"Error decoding base64 string: {e}")
        print("Please ensure the input is a valid base64 string.")
    except Exception as e:
        print(f"An unexpected error occurred: {e}")

# Process the output.json file
decode_json_and_save_image("output.json", "generated_image.png")
"""


@needs_curl
def test_image_url_works_with_and_without_prefix(model_root: Path, tmp_path: Path) -> None:
    with serving(model_root, tmp_path, RESPONSE_FORMAT="image_url") as client:
        shell(RUN.format(url=client.url, body=json.dumps({"input": PIXAR})), tmp_path)
    output = json.loads((tmp_path / "output.json").read_text())["output"]
    assert output["image_url"].startswith("data:image/png;base64,")
    assert output["images"] == [output["image_url"]]
    assert "successfully saved" in run([sys.executable, "-c", DECODE_IMAGE], tmp_path)
    with_prefix = opened(tmp_path / "generated_image.png")
    assert with_prefix.size == (64, 64)
    shell(
        """\
mv generated_image.png first.png
jq '.output.image_url |= sub("^data:[^,]*,"; "")' output.json > bare.json
mv bare.json output.json""",
        tmp_path,
    )
    assert "successfully saved" in run([sys.executable, "-c", DECODE_IMAGE], tmp_path)
    assert opened(tmp_path / "generated_image.png").tobytes() == with_prefix.tobytes()


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"api_name": "txt2img", "prompt": "a vaporwave woman", **SMALL, "steps": 2}, (64, 64)),
        (
            {
                "api_name": "img2img",
                "init_images": [encoded(photo())],
                "prompt": "a vaporwave woman",
                "negative_prompt": "blurry",
                "seed": 7,
                "steps": 4,
                "cfg_scale": 6,
                "denoising_strength": 0.6,
                "sampler_name": "Euler a",
                "batch_size": 1,
                "n_iter": 1,
                "restore_faces": True,
                "width": 96,
                "height": 64,
            },
            (96, 64),
        ),
        (
            {
                "api_name": "txt2img",
                "prompt": "a vaporwave woman",
                **SMALL,
                "steps": 2,
                "enable_hr": True,
                "hr_scale": 1.5,
                "hr_upscaler": "Latent",
                "hr_second_pass_steps": 3,
                "denoising_strength": 0.5,
                "sampler_name": "DPM++ 2M Karras",
                "n_iter": 2,
            },
            (96, 96),
        ),
    ],
    ids=["txt2img", "img2img", "enable_hr"],
)
def test_api_name_answers_in_a1111s_shape(
    worker: Client, body: dict[str, Any], size: tuple[int, int]
) -> None:
    output = worker.output(body)
    assert set(output) == {"images", "parameters", "info"}
    assert [decoded(image).size for image in output["images"]] == [size] * body.get("n_iter", 1)
    info = json.loads(output["info"])
    assert (info["prompt"], info["steps"]) == (body["prompt"], body["steps"])
    assert info["sampler_name"] == body.get("sampler_name", info["sampler_name"]).removesuffix(
        " Karras"
    )
    assert info["all_seeds"] == [info["seed"]] * len(output["images"])
    assert f"Size: {size[0]}x{size[1]}" in info["infotexts"][0]
    assert ("restore_faces is ignored" in " ".join(info["warnings"])) == ("restore_faces" in body)


def a1111_pixels(worker: Client, body: dict[str, Any]) -> bytes:
    return decoded(worker.output(body)["images"][0]).tobytes()


def test_a1111s_models_and_options(worker: Client) -> None:
    models: Any = worker.output({"api_name": "getModels"})
    assert placeholders.CHECKPOINT in [model["title"] for model in models]
    assert worker.output({"api_name": "getOptions"})["CLIP_stop_at_last_layers"] == 1
    wrong = worker.runsync({"api_name": "setOptions", "sd_model_checkpoint": "nope"})
    assert wrong["error"].startswith("MODEL_NOT_FOUND")
    body = {"api_name": "txt2img", "prompt": "a fox", **SMALL, "steps": 2, "seed": 1}
    before = a1111_pixels(worker, body)
    (warning,) = worker.output({"api_name": "setOptions", "CLIP_stop_at_last_layers": 2})[
        "warnings"
    ]
    assert warning.startswith("setOptions sets nothing for later requests")
    assert worker.output({"api_name": "getOptions"})["CLIP_stop_at_last_layers"] == 1
    assert a1111_pixels(worker, body) == before
    own = {"override_settings": {"CLIP_stop_at_last_layers": 2}}
    assert a1111_pixels(worker, {**body, **own}) != before


def test_worker_comfyuis_workflow_and_images(worker: Client) -> None:
    workflow = {
        "1": node("LoadImage", image="input_image_1.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="ComfyUI"),
    }
    sent = photo()
    images = [
        {"name": "input_image_1.png", "image": f"data:image/png;base64,{encoded(sent)}"},
        {"name": "unused.png", "image": encoded(sent)},
    ]
    output = worker.output({"workflow": workflow, "images": images})
    (picture,) = pictures(output)
    assert picture.convert("RGB").tobytes() == sent.tobytes()
    assert {"filename", "type", "data"} <= set(output["images"][0])
    assert output["warnings"] == ["images: no node names 'unused.png'"]


def test_worker_comfyuis_request_with_an_api_key(worker: Client) -> None:
    output = worker.output({"workflow": txt2img(), "comfy_org_api_key": "comfyui-key"})
    assert pictures(output)[0].size == (64, 64)
    assert "comfyui-key" not in json.dumps(output)


TEXT_TO_IMAGE = {
    "prompt": "A photorealistic cat astronaut floating in space, 4k, detailed",
    "negative_prompt": "deformed, ugly, bad anatomy",
    **SMALL,
    "num_inference_steps": 3,
    "guidance_scale": 7.5,
    "seed": 42,
}


def test_diffusers_text_to_image(worker: Client) -> None:
    output = worker.output({**TEXT_TO_IMAGE, "scheduler": "K_EULER_ANCESTRAL", "num_images": 2})
    assert [picture.size for picture in pictures(output)] == [(64, 64)] * 2
    expected = {"steps": 3, "cfg": 7.5, "seed": 42, "sampler": "euler_ancestral", "batch_size": 2}
    assert expected.items() <= output["parameters"].items()
    assert output["warnings"] == []


def test_diffusers_image_to_image(worker: Client) -> None:
    request = {
        "prompt": "A castle in a magical forest",
        "negative_prompt": "deformed, ugly, bad anatomy",
        "image": encoded(photo()),
        "strength": 0.75,
        "num_inference_steps": 4,
        "guidance_scale": 7.5,
    }
    output = worker.output({**request, "num_images": 2})
    assert (output["workflow"], output["parameters"]["denoise"]) == ("img2img", 0.75)
    assert output["warnings"] == ["num_images is ignored: this graph has no batch_size"]


def test_diffusers_controlnet(worker: Client) -> None:
    control = {"type": "canny", "image": encoded(photo()), "conditioning_scale": 0.8}
    request = {
        "prompt": "A fantasy landscape with mountains",
        "controlnet": control,
        **SMALL,
        "steps": 2,
    }
    plain = worker.output({**request, "controlnet": None, "seed": 1})
    led = worker.output({**request, "seed": 1})
    assert pictures(led)[0].tobytes() != pictures(plain)[0].tobytes()


def test_diffusers_lora_in_request_and_prompt(worker: Client) -> None:
    request = {
        "prompt": f"A portrait in the style of <lora:{Path(placeholders.LORA).stem}:1.0>",
        "lora": {"model_id": placeholders.LORA_B, "weight": 0.8},
        **SMALL,
        "steps": 2,
        "seed": 1,
    }
    by_contract = {
        "prompt": "A portrait in the style of",
        "loras": [
            {"name": placeholders.LORA_B, "strength": 0.8},
            {"name": placeholders.LORA, "strength": 1.0},
        ],
        **SMALL,
        "steps": 2,
        "seed": 1,
    }
    assert (
        pictures(worker.output(request))[0].tobytes()
        == pictures(worker.output(by_contract))[0].tobytes()
    )


def test_the_sdxl_workers_refiner(worker: Client) -> None:
    request = {
        "prompt": "a fox",
        **SMALL,
        "num_inference_steps": 5,
        "workflow": "sdxl-refiner",
        "seed": 1,
    }
    checkpoints = {
        "checkpoint": placeholders.CHECKPOINT,
        "parameters": {"refiner_checkpoint": placeholders.CHECKPOINT},
    }
    output = worker.output(
        {**request, **checkpoints, "refiner_inference_steps": 10, "high_noise_frac": 0.6}
    )
    expected = {"steps": 5, "base_end": 3, "refiner_steps": 10, "refiner_start": 6}
    assert expected.items() <= output["parameters"].items()


@pytest.mark.parametrize(
    ("changes", "word"), [({"num_images": 5}, "num_images"), ({"batch_size": 5}, "batch_size")]
)
def test_too_many_pictures_names_the_setting(
    worker: Client, changes: dict[str, int], word: str
) -> None:
    job = worker.runsync({"prompt": "a fox", **SMALL, **changes})
    assert job["error"] == (
        f"INVALID_VALUE: {word} must be at most 4, not 5: the endpoint's setting MAX_BATCH_SIZE"
    )


@pytest.mark.parametrize("response", ["image_base64", "base64_list", "a1111"])
def test_an_error_is_an_error_in_every_shape(worker: Client, response: str) -> None:
    job = worker.runsync({"prompt": "a fox", "sampler": "nope", "response": response})
    assert (job["status"], job["error"].split(":")[0]) == ("FAILED", "INVALID_VALUE")


def test_response_in_the_request_beats_the_setting(worker: Client) -> None:
    request = {"prompt": "a fox", **SMALL, "steps": 2, "response": "image_url_list"}
    output: Any = worker.output(request)
    (entry,) = output
    assert decoded(entry["image_url"].removeprefix("data:image/png;base64,")).size == (64, 64)
