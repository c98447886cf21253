"""The page of `serve` in Chromium, through the endpoint, the worker and ComfyUI."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageChops, ImageDraw, ImageOps
from playwright.sync_api import Browser, Page, expect

from comfy_local.page import single_file
from tests import clips, pictures, placeholders
from tests.browser import chromium, drop_file, new_page
from tests.e2e.conftest import Client
from tests.editor_files import editor_file, node
from tests.file_server import ClosingServer, serving
from tests.page_endpoint import KEY, let_it_start, page_endpoint

pytestmark = pytest.mark.e2e

RESULT_IMAGE = ".result figure img"
SMALL = {"Width": "64", "Height": "64", "Steps": "2"}
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}
# Where screenshots are kept to be looked at; by default in pytest's own folder.
SHOTS = os.environ.get("PAGE_SHOTS")


MODEL, CLIP, VAE = (1, 0), (1, 1), (1, 2)
EDITOR_FILE = editor_file(
    node(1, "CheckpointLoaderSimple", {}, "MODEL CLIP VAE", ["absent.safetensors"]),
    node(2, "CLIPTextEncode", {"clip": ("CLIP", CLIP)}, "CONDITIONING", ["a lighthouse"]),
    node(3, "CLIPTextEncode", {"clip": ("CLIP", CLIP)}, "CONDITIONING", ["blurry"]),
    node(4, "EmptyLatentImage", {}, "LATENT", [512, 512, 1]),
    node(
        5,
        "KSampler",
        {
            "model": ("MODEL", MODEL),
            "positive": ("CONDITIONING", (2, 0)),
            "negative": ("CONDITIONING", (3, 0)),
            "latent_image": ("LATENT", (4, 0)),
        },
        "LATENT",
        [5, "randomize", 20, 7, "euler", "normal", 1],
    ),
    node(6, "VAEDecode", {"samples": ("LATENT", (5, 0)), "vae": ("VAE", VAE)}, "IMAGE"),
    node(7, "SaveImage", {"images": ("IMAGE", (6, 0))}, "", ["ComfyUI"]),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, worker: Client) -> Iterator[Page]:
    with new_page(browser, viewport=DESK) as opened:
        opened.goto(root(worker))
        opened.locator(".cards a").first.wait_for()
        yield opened


def root(worker: Client) -> str:
    return worker.url.removesuffix("v2/local")


def open_template(page: Page, name: str) -> None:
    page.locator(f'[data-template="{name}"]').click()
    page.locator("form .run").wait_for()


def fill(page: Page, values: dict[str, str]) -> None:
    for label, value in values.items():
        page.get_by_label(label, exact=True).fill(value)


def run(page: Page) -> dict[str, Any]:
    """Press Run, wait for the result, and return the input that was sent."""
    with page.expect_request("**/run") as sent:
        page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".result figure, .banner:visible, .field.invalid").first.wait_for()
    assert page.locator(".error:visible, .banner:visible").all_inner_texts() == []
    job_input: dict[str, Any] = json.loads(sent.value.post_data or "")["input"]
    return job_input


def shown_picture(page: Page) -> Image.Image:
    """The picture of the result, as the page has it."""
    draw = """(image) => {
        const canvas = document.createElement("canvas");
        canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight;
        canvas.getContext("2d").drawImage(image, 0, 0);
        return canvas.toDataURL("image/png").split(",")[1];
    }"""
    data = page.locator(RESULT_IMAGE).first.evaluate(draw)
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def is_same(first: Image.Image, second: Image.Image) -> bool:
    return ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getbbox() is None


def picture_of(worker: Client, job_input: dict[str, Any]) -> Image.Image:
    (image,) = worker.output(job_input)["images"]
    return Image.open(io.BytesIO(base64.b64decode(image["data"])))


@contextmanager
def files_of(folder: Path) -> Iterator[str]:
    """Serve a folder from another origin."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with serving(ClosingServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"


def paint(page: Page, height: float) -> None:
    """Draw a line from left to right at a share of the picture's height."""
    box = page.locator(".painter canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * height)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * height, steps=4)
    page.mouse.up()


def landscape() -> Image.Image:
    """A lighthouse in the evening, so that screenshots show a picture and not noise."""
    width, height = 1536, 1024
    image = Image.linear_gradient("L").resize((width, height))
    image = ImageOps.colorize(image, "#27285f", "#ffb27d", mid="#c65f7c")
    draw = ImageDraw.Draw(image, "RGBA")
    draw.polygon([(560, 304), (1536, 120), (1536, 368)], "#ffd79a88")
    draw.ellipse((1048, 512, 1272, 736), fill="#ffe3ae")
    draw.polygon(
        [(0, 760), (360, 600), (800, 784), (1536, 672), (1536, 1024), (0, 1024)], "#4b2d5c"
    )
    draw.polygon([(0, 904), (600, 744), (1536, 928), (1536, 1024), (0, 1024)], "#2a1b40")
    draw.polygon([(448, 792), (480, 352), (560, 352), (592, 792)], "#f6efe6")
    draw.polygon([(472, 464), (568, 464), (573, 528), (467, 528)], "#d1495b")
    draw.polygon([(460, 632), (580, 632), (585, 696), (455, 696)], "#d1495b")
    draw.rectangle((480, 288, 560, 352), "#ffd97a")
    draw.polygon([(464, 288), (520, 232), (576, 288)], "#2a1b40")
    return image.resize((384, 256))


def choose_picture(page: Page, key: str, picture: Image.Image | None = None) -> None:
    data = pictures.file(picture or pictures.photo())
    file = {"name": "photo.png", "mimeType": "image/png", "buffer": data}
    page.locator(f'[data-key="{key}"] input[type=file]').first.set_input_files([file])
    page.locator(f'[data-key="{key}"] .preview img').first.wait_for()


def test_a_template_runs_from_its_form(page: Page, worker: Client) -> None:
    open_template(page, "txt2img")
    keys = page.locator("form [data-key]").evaluate_all(
        "(fields) => fields.map((field) => field.dataset.key)"
    )
    assert keys == [
        "prompt", "negative_prompt", "size", "seed", "steps", "cfg", "checkpoint", "loras",
        "controlnets", "sampler", "scheduler", "denoise", "batch_size", "clip_skip", "output",
        "overrides",
    ]  # fmt: skip
    fill(page, {**SMALL, "Prompt": "a lighthouse", "Seed": "7"})
    sent = run(page)
    sent.pop("output")
    assert sent == {
        "workflow": "txt2img", "prompt": "a lighthouse", "seed": 7, "steps": 2,
        "width": 64, "height": 64,
    }  # fmt: skip
    assert is_same(shown_picture(page), picture_of(worker, sent))
    expect(page.locator(".facts")).to_contain_text("Seed 7")
    assert "KSampler" in page.locator(".timings").inner_text()
    expect(page.locator(".past .recent")).to_have_count(1)
    page.get_by_role("link", name="All templates", exact=True).click()
    page.locator(".history .recent").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("7")
    assert is_same(shown_picture(page), picture_of(worker, sent))


def test_loras_and_controlnets_from_the_form(page: Page, worker: Client) -> None:
    open_template(page, "txt2img")
    fill(page, {**SMALL, "Seed": "7"})
    page.get_by_role("button", name="Add a LoRA").click()
    offered = page.locator('[data-key="loras"] datalist option').evaluate_all(
        "(options) => options.map((option) => option.value)"
    )
    assert placeholders.LORA in offered
    page.get_by_label("LoRA file").fill(placeholders.LORA)
    page.locator('[data-key="loras"] .small-number input').fill("0.5")
    page.get_by_role("button", name="Add a ControlNet").click()
    page.get_by_label("ControlNet file").fill(placeholders.CONTROLNET)
    choose_picture(page, "controlnets")
    sent = run(page)
    assert sent["loras"] == [{"name": placeholders.LORA, "strength": 0.5}]
    assert sent["controlnets"][0]["model"] == placeholders.CONTROLNET
    assert is_same(shown_picture(page), picture_of(worker, sent))


def test_a_dropped_editor_file_runs(page: Page, worker: Client) -> None:
    workflow = EDITOR_FILE
    data = base64.b64encode(json.dumps(workflow).encode()).decode()
    drop_file(page, ".drop-zone", Path("poster.json"), data, "application/json")
    expect(page.locator("h1")).to_have_text("poster")
    fill(page, {**SMALL, "Seed": "9"})
    page.get_by_label("Model", exact=True).select_option(placeholders.CHECKPOINT)
    sent = run(page)
    assert sent["workflow"] == workflow
    (image,) = worker.output(sent)["images"]
    assert is_same(shown_picture(page), Image.open(io.BytesIO(base64.b64decode(image["data"]))))
    page.get_by_role("link", name="All templates", exact=True).click()
    drop_file(page, ".drop-zone", Path("made.png"), image["data"], "image/png")
    expect(page.locator("h1")).to_have_text("made")
    expect(page.get_by_label("Steps", exact=True)).to_have_value(SMALL["Steps"])


def test_files_are_sent_by_their_names(page: Page) -> None:
    workflow: dict[str, Any] = {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": "song.flac"}},
        "2": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "a"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "4": {"class_type": "LoadImage", "inputs": {"image": "b.png"}},
        "5": {"class_type": "ImageBatch", "inputs": {"image1": ["3", 0], "image2": ["4", 0]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "b"}},
    }
    data = base64.b64encode(json.dumps(workflow).encode()).decode()
    drop_file(page, ".drop-zone", Path("sound.json"), data, "application/json")
    file = {"name": "tone.flac", "mimeType": "audio/flac", "buffer": clips.sound()}
    page.locator('[data-key="images.song.flac"] input[type=file]').set_input_files([file])
    page.locator(".preview audio").wait_for()
    for name in ("a.png", "b.png"):
        choose_picture(page, f"images.{name}")
    sent = run(page)
    assert list(sent["overrides"]) == ["1.audio"]
    assert [entry["name"] for entry in sent["images"]] == ["a.png", "b.png"]
    page.locator(".result audio").wait_for()
    assert page.locator(".result figure img").count() == 2


def test_an_error_lands_on_its_field(page: Page) -> None:
    open_template(page, "txt2img")
    fill(page, {"Width": "63"})
    page.get_by_role("button", name="Run", exact=True).click()
    width = page.get_by_label("Width", exact=True)
    expect(width).to_have_attribute("aria-invalid", "true")
    expect(width).to_be_focused()
    expect(page.locator('[data-key="size"] .error')).to_contain_text("in steps of 8, not 63")
    width.fill("64")
    expect(width).not_to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Add a LoRA").click()
    page.get_by_label("LoRA file").fill("absent")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_label("LoRA file")).to_be_focused()
    expect(page.locator('[data-key="loras"] .error')).to_contain_text("'absent' is not installed")


def test_an_error_lands_on_its_node(page: Page) -> None:
    workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1,
                                                     "color": 0}},
        "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "scale_by": 99,
                                                       "upscale_method": "nearest-exact"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "a"}},
    }  # fmt: skip
    data = base64.b64encode(json.dumps(workflow).encode()).decode()
    drop_file(page, ".drop-zone", Path("scale.json"), data, "application/json")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator('[data-node="2"]')).to_be_focused()
    expect(page.locator('[data-node="2"] .error')).to_contain_text("scale_by")


def test_progress_moves_and_a_job_is_cancelled(page: Page, worker: Client) -> None:
    open_template(page, "txt2img")
    fill(page, {**SMALL, "Width": "128", "Height": "128", "Steps": "2000"})
    page.evaluate(
        """() => {
            window.seen = [];
            const look = () => {
                const bar = document.querySelector("[role=progressbar]");
                const value = bar?.getAttribute("aria-valuenow");
                if (value && value !== window.seen.at(-1)) window.seen.push(value);
            };
            new MutationObserver(look).observe(
                document.body, { subtree: true, childList: true, attributes: true }
            );
        }"""
    )
    with page.expect_response("**/run") as answer:
        page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function("() => window.seen.length >= 3")
    page.locator(".preview-stage img").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The job was cancelled.").wait_for()
    seen = [int(value) for value in page.evaluate("() => window.seen")]
    assert seen == sorted(set(seen))
    assert worker.get(f"status/{answer.value.json()['id']}")["status"] == "CANCELLED"
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_the_copied_curl_makes_the_same_picture(page: Page, tmp_path: Path) -> None:
    open_template(page, "txt2img")
    fill(page, {**SMALL, "Prompt": "it's a lighthouse"})
    run(page)
    shown = shown_picture(page)
    page.locator(".facts").get_by_role("button", name="Copy as code").click()
    command = page.locator("pre.code").inner_text()
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=300)
    assert is_same(shown, Image.open(tmp_path / "image.png"))
    page.get_by_role("button", name="Python", exact=True).click()
    compile(page.locator("pre.code").inner_text(), "copied.py", "exec")


def test_a_mask_is_painted_on_the_picture(page: Page) -> None:
    open_template(page, "inpaint")
    choose_picture(page, "image")
    page.get_by_role("button", name="Paint a mask").click()
    paint(page, 0.5)
    page.get_by_role("button", name="Use this mask").click()
    page.get_by_label("Steps", exact=True).fill("1")
    sent = run(page)
    mask = Image.open(io.BytesIO(base64.b64decode(sent["mask"].split(",")[1])))
    assert mask.size == (64, 64)
    # With an alpha channel, that would be the mask.
    assert mask.mode == "L"
    assert (mask.getpixel((32, 32)), mask.getpixel((2, 2))) == (255, 0)
    assert shown_picture(page).getpixel((2, 2)) == pictures.photo().getpixel((2, 2))


def test_the_key_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    with page_endpoint(tmp_path) as endpoint, new_page(browser) as page:
        page.goto(endpoint.page_url)
        page.get_by_role("button", name="Enter the key").click()
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use it").click()
        page.locator("main").get_by_text("ComfyUI is starting").wait_for()
        let_it_start(tmp_path)
        open_template(page, "txt2img")
        assert page.locator("h1").inner_text() == "Text to image"
        assert page.locator(".family").inner_text() == "</script><b>"


def test_one_file_runs_from_elsewhere(browser: Browser, worker: Client, tmp_path: Path) -> None:
    with files_of(tmp_path) as url, new_page(browser) as page:
        catalog = worker.get("templates")
        catalog["templates"] = [worker.get("templates/txt2img")]
        (tmp_path / "page.html").write_text(single_file(catalog), encoding="utf-8")
        page.goto(f"{url}/page.html")
        page.get_by_role("button", name="Connect", exact=True).click()
        page.get_by_label("Endpoint id or URL").fill(worker.url)
        page.get_by_label("API key").fill("any")
        page.get_by_role("button", name="Use it").click()
        open_template(page, "txt2img")
        fill(page, SMALL)
        run(page)
        expect(page.locator("#connection-text")).to_contain_text("RunPod")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_looks_right(
    browser: Browser, worker: Client, tmp_path: Path, theme: str
) -> None:
    shots = Path(SHOTS) if SHOTS else tmp_path
    with new_page(browser, viewport=DESK, color_scheme=theme, reduced_motion="reduce") as page:
        page.goto(root(worker))
        page.locator(".cards a").first.wait_for()
        check(page, shots / f"gallery-{theme}.png")
        open_template(page, "inpaint")
        choose_picture(page, "image", landscape())
        page.get_by_role("button", name="Paint a mask").click()
        paint(page, 0.7)
        check(page, shots / f"painter-{theme}.png")
        page.get_by_role("button", name="Undo").click()
        page.get_by_label("Brush").fill("2")
        paint(page, 0.01)
        page.get_by_role("button", name="Use this mask").click()
        fill(page, {"Prompt": "a lighthouse in the evening", "Steps": "1"})
        run(page)
        page.evaluate("() => scrollTo(0, 0)")
        check(page, shots / f"result-{theme}.png")
        page.get_by_role("link", name="All templates", exact=True).click()
        open_template(page, "txt2img")
        page.get_by_role("button", name="Add a LoRA").click()
        page.get_by_role("button", name="Add a ControlNet").click()
        page.locator("summary").first.click()
        fill(page, {"Width": "63"})
        page.get_by_role("button", name="Run", exact=True).click()
        page.locator(".field.invalid").first.wait_for()
        check(page, shots / f"error-{theme}.png")
        page.locator("#connection").click()
        check(page, shots / f"dialog-{theme}.png")
        page.get_by_role("button", name="Close").click()
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        check(page, shots / f"phone-form-{theme}.png")
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= PHONE["width"]
        page.get_by_role("link", name="All templates", exact=True).click()
        page.locator(".cards a").first.wait_for()
        check(page, shots / f"phone-{theme}.png")


def check(page: Page, shot: Path) -> None:
    """Keep a screenshot, and find no serious fault with axe-core."""
    page.screenshot(path=shot)
    found = Axe().run(page).response["violations"]
    serious = [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == [], shot.name
