"""Templates of current models, run whole with small random models: from a job's input to images and clips with sound.

The models have the layers of the real ones, but few and narrow. CLIP-L takes the place of each text
encoder.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from comfy_worker.planning.templates import Templates
from comfy_worker.runner import JobRunner
from comfy_worker.settings import Settings
from tests import pictures, placeholders, shipped
from tests.base_graphs import node
from tests.comfyui.conftest import NODE_PACKS, RealComfyUI, launch_options, real_comfyui

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif(shipped.comfyui_version() < (0, 33), reason="the models are newer"),
]

PHOTO = pictures.encoded(pictures.photo())
OTHER_PHOTO = pictures.encoded(pictures.photo().rotate(90))
BASE = {"prompt": "a cat", "seed": 5, "width": 64, "height": 64}


@dataclass(frozen=True)
class Case:
    """A request for a template, and what it makes.

    Args:
        request: the keys of the request beside the common ones.
        overrides: the inputs that get the small models.
        lora: a LoRA that fits the model.
        parameters: the template's own parameters.
        text_encoder: the node that loads the text encoder, and the features that the model takes, if the
            template's own loader cannot load CLIP-L for it.
        fps: frames a second of the clip; 0 for an image.
        has_sound: whether the clip has sound.
        size: width and height of the result.
    """

    request: dict[str, Any]
    overrides: dict[str, Any]
    lora: str
    parameters: dict[str, Any] = field(default_factory=dict)
    text_encoder: tuple[str, int] | None = None
    fps: int = 0
    has_sound: bool = False
    size: tuple[int, int] = (64, 64)


CLIP_L = {"2.clip_name": placeholders.CLIP_L, "2.type": "stable_diffusion"}
LTX_23 = {
    "1.ckpt_name": placeholders.LTX_AV,
    "3.ckpt_name": placeholders.LTX_AV,
    "4.lora_name": placeholders.LORA_LTX,
    "5.model_name": placeholders.LTX_UPSCALER,
}
LTX_25 = {
    **CLIP_L,
    "1.unet_name": placeholders.LTX_AV,
    "3.vae_name": placeholders.LTX_VIDEO_VAE,
    "4.vae_name": placeholders.LTX_AUDIO_VAE,
    "5.model_name": placeholders.LTX_UPSCALER,
}
LTX = {**BASE, "length": 9, "fps": 8}
MINIMAX = {
    **CLIP_L,
    "1.unet_name": placeholders.MINIMAX_H3,
    "3.vae_name": placeholders.MINIMAX_VAE,
    "4.vae_name": placeholders.MINIMAX_AUDIO_VAE,
    "6.lora_name": placeholders.LORA_MINIMAX,
}
CLIP = {**BASE, "length": 5, "steps": 2}


def turbo_image(model: str, lora: str) -> dict[str, Any]:
    """The overrides of a template for images that has a turbo LoRA."""
    return {
        "1.unet_name": model,
        "3.vae_name": placeholders.VAE_WAN,
        "Load LoRA (turbo).lora_name": lora,
    }


def ltx(version: str, **request: Any) -> Case:
    overrides = LTX_23 if version == "2.3" else LTX_25
    encoder = ("2", 768) if version == "2.3" else None
    return Case(
        {**LTX, **request},
        overrides,
        placeholders.LORA_LTX,
        text_encoder=encoder,
        fps=8,
        has_sound=True,
    )


def minimax(**request: Any) -> Case:
    return Case({**CLIP, **request}, MINIMAX, placeholders.LORA_MINIMAX, fps=24, has_sound=True)


CASES = {
    "ltx-2.3-t2v": ltx("2.3"),
    "ltx-2.3-i2v": ltx("2.3", image=PHOTO),
    "ltx-2.5-t2v": ltx("2.5"),
    "ltx-2.5-i2v": ltx("2.5", image=PHOTO),
    "minimax-h3-t2v": minimax(),
    "minimax-h3-i2v": minimax(image=PHOTO),
    "minimax-h3-r2v": minimax(image=PHOTO),
    "hunyuan-video-1.5": Case(
        CLIP,
        {
            "1.unet_name": placeholders.HUNYUAN_15,
            "2.clip_name1": placeholders.CLIP_L,
            "2.clip_name2": placeholders.CLIP_L,
            "2.type": "sd3",
            "3.vae_name": placeholders.HUNYUAN_VAE,
        },
        placeholders.LORA_HUNYUAN,
        fps=24,
    ),
    "krea2": Case(
        {**BASE, "steps": 2},
        {"1.unet_name": placeholders.KREA2, "3.vae_name": placeholders.VAE_WAN},
        placeholders.LORA_KREA2,
        text_encoder=("2", 12 * 160),
    ),
    "anima": Case(
        {**BASE, "steps": 2},
        turbo_image(placeholders.ANIMA, placeholders.LORA_ANIMA),
        placeholders.LORA_ANIMA,
        text_encoder=("2", 1024),
    ),
    "qwen-image-2512": Case(
        {**BASE, "steps": 2},
        turbo_image(placeholders.QWEN_IMAGE, placeholders.LORA_QWEN),
        placeholders.LORA_QWEN,
        text_encoder=("2", 3584),
    ),
}


@pytest.fixture(scope="module")
def comfyui(model_root: Path) -> Iterator[RealComfyUI]:
    with real_comfyui(launch_options(model_root, NODE_PACKS)) as started:
        yield started


@dataclass(frozen=True)
class Outcome:
    """What a template made.

    Args:
        frames: the image, or the frames of the clip, (count, height, width, 3) in bytes.
        sound: the samples of the clip's sound, (channels, count); none if it has no sound.
        sound_s: the length of the sound.
    """

    frames: np.ndarray
    sound: np.ndarray
    sound_s: float

    def differs(self, other: Outcome) -> bool:
        """Whether frames or sound are not those of another one."""
        same_frames = np.array_equal(self.frames, other.frames)
        return not same_frames or not np.array_equal(self.sound, other.sound)


def decoded_image(data: bytes) -> Outcome:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB"))
    return Outcome(pixels[None], np.zeros((0, 0)), 0)


def decoded_clip(data: bytes) -> Outcome:
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        if not container.streams.audio:
            return Outcome(np.stack(frames), np.zeros((0, 0)), 0)
        stream = container.streams.audio[0]
        sound = np.concatenate([part.to_ndarray() for part in container.decode(audio=0)], axis=1)
        return Outcome(np.stack(frames), sound, float(stream.duration * stream.time_base))


class Runs:
    """Runs templates; an outcome is kept, since each test compares with the plain request.

    Args:
        comfyui: the ComfyUI.
        folder: an empty folder for templates whose text encoder's node is another one.
    """

    def __init__(self, comfyui: RealComfyUI, folder: Path) -> None:
        self._comfyui = comfyui
        self._folder = folder
        self.plain = functools.cache(self._plain)

    def _plain(self, name: str) -> Outcome:
        return self.run(name)

    def run(self, name: str, parameters: dict[str, Any] | None = None, **changes: Any) -> Outcome:
        """Run a template with a changed request."""
        case = CASES[name]
        job_input = {"workflow": name, **case.request, "overrides": case.overrides, **changes}
        job_input["parameters"] = {**case.parameters, **(parameters or {})}
        templates = self._templates(name, case.text_encoder)
        runner = JobRunner(Settings(), self._comfyui.supervisor, templates)
        result = runner.run({"id": "test", "input": job_input}, threading.Event())
        assert "error" not in result, result
        (media,) = result["videos" if case.fps else "images"]
        assert result["workflow"] == name
        data = base64.b64decode(media["data"])
        return decoded_clip(data) if case.fps else decoded_image(data)

    def _templates(self, name: str, text_encoder: tuple[str, int] | None) -> Templates:
        if text_encoder is None:
            return Templates([shipped.WORKFLOWS])
        node_id, width = text_encoder
        graph = shipped.graph(name)
        graph[node_id] = node("TestTextEncoder", clip_name=placeholders.CLIP_L, width=width)
        self._folder.joinpath(f"{name}.json").write_text(json.dumps(graph))
        params = self._folder / f"{name}.params.json"
        params.write_text(json.dumps(shipped.params(name)))
        return Templates([self._folder])


@pytest.fixture(scope="module")
def runs(comfyui: RealComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(comfyui, tmp_path_factory.mktemp("workflows"))


CLIPS = [name for name, case in CASES.items() if case.fps]
WITH_IMAGE = [name for name, case in CASES.items() if "image" in case.request]
WITH_TURBO = [name for name in CASES if "turbo" in shipped.params(name).get("parameters", {})]
LENGTHS = {"ltx": 17, "minimax": 22, "hunyuan": 9}


@pytest.mark.parametrize("name", CASES)
def test_a_template_makes_an_image_or_clip(runs: Runs, name: str) -> None:
    case = CASES[name]
    made = runs.plain(name)
    count = case.request.get("length", 1)
    assert made.frames.shape == (count, case.size[1], case.size[0], 3)
    assert made.frames.std() > 1
    if case.has_sound:
        assert made.sound_s == pytest.approx(count / case.fps, abs=0.1)
        assert made.sound.std() > 0
    else:
        assert made.sound.size == 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("key", ["prompt", "seed"])
def test_prompt_and_seed_change_the_result(runs: Runs, name: str, key: str) -> None:
    changed = runs.run(name, **{key: {"prompt": "a dog on a red sofa", "seed": 6}[key]})
    assert changed.differs(runs.plain(name))
    assert changed.frames.shape == runs.plain(name).frames.shape


@pytest.mark.parametrize("name", ["ltx-2.3-t2v", "minimax-h3-t2v"])
def test_a_seed_repeats_the_result(runs: Runs, name: str) -> None:
    plain = runs.plain(name)
    runs.run(name, seed=6)
    assert not runs.run(name).differs(plain)


@pytest.mark.parametrize("name", CASES)
def test_the_result_has_another_size(runs: Runs, name: str) -> None:
    assert runs.run(name, width=128).frames.shape[1:] == (64, 128, 3)


@pytest.mark.parametrize("name", CLIPS)
def test_the_clip_has_another_length(runs: Runs, name: str) -> None:
    length = LENGTHS[name.split("-")[0]]
    case = CASES[name]
    made = runs.run(name, length=length)
    assert len(made.frames) == length
    if case.has_sound:
        assert made.sound_s == pytest.approx(length / case.fps, abs=0.1)


@pytest.mark.parametrize("name", CASES)
def test_a_lora_changes_the_result(runs: Runs, name: str) -> None:
    changed = runs.run(name, loras=[{"name": CASES[name].lora, "strength": 2}])
    assert changed.differs(runs.plain(name))


@pytest.mark.parametrize("name", WITH_TURBO)
def test_turbo_changes_the_result(runs: Runs, name: str) -> None:
    steps = CASES[name].request["steps"]
    changed = runs.run(name, {"turbo": True}, steps=steps)
    assert changed.differs(runs.plain(name))


@pytest.mark.parametrize("name", WITH_IMAGE)
def test_the_image_changes_the_clip(runs: Runs, name: str) -> None:
    assert runs.run(name, image=OTHER_PHOTO).differs(runs.plain(name))


@pytest.mark.parametrize(
    ("name", "key"),
    [("minimax-h3-i2v", "last_image"), ("minimax-h3-r2v", "image2"), ("minimax-h3-r2v", "image3")],
)
def test_a_further_image_changes_the_clip(runs: Runs, name: str, key: str) -> None:
    assert runs.run(name, {key: OTHER_PHOTO}).differs(runs.plain(name))
