"""Every kind of output of real graphs comes back whole, pictures as SaveImage gives them, and nothing stays."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from comfy_worker.deadline import Deadline
from comfy_worker.runner import JobRunner
from comfy_worker.settings import Settings
from tests.comfyui.conftest import NODE_PACKS, TEMPLATES, RealComfyUI, launch_options, real_comfyui
from tests.graphs import node

pytestmark = pytest.mark.comfyui

PHOTO = node("TestPhoto", width=96, height=64, batch=1, channels=3, grain=1)
FRAMES = node("TestPhoto", width=64, height=64, batch=5, channels=3, grain=1)
SOUND = node("EmptyAudio", duration=0.5, sample_rate=44100, channels=2)


@pytest.fixture(scope="module")
def comfyui(model_root: Path) -> Iterator[RealComfyUI]:
    """The real ComfyUI with nodes that make pictures out of nothing."""
    with real_comfyui(launch_options(model_root, NODE_PACKS)) as started:
        yield started


class Worker:
    """Runs jobs on the real ComfyUI."""

    def __init__(self, comfyui: RealComfyUI, **settings: Any) -> None:
        self.comfyui = comfyui
        self._runner = JobRunner(Settings(**settings), comfyui.supervisor, TEMPLATES)

    def run(self, **job_input: Any) -> dict[str, Any]:
        """The result of a job that must succeed."""
        result = self._runner.run({"id": "test", "input": job_input}, threading.Event())
        assert "error" not in result, result
        return result

    def left(self) -> list[Path]:
        """What is in the folders of jobs; ComfyUI itself makes one for its 3D loader."""
        process = self.comfyui.running.process
        assert process.raw_dir is not None
        roots = (process.input_dir, process.output_dir, process.temp_dir, process.raw_dir)
        return [path for root in roots for path in root.rglob("*") if path.name != "3d"]


@pytest.fixture
def worker(comfyui: RealComfyUI) -> Iterator[Worker]:
    """A worker of which nothing may be left after the test."""
    started = Worker(comfyui)
    yield started
    client = comfyui.running.client
    comfyui.running.history.settle(Deadline(timeout_s=60))
    assert client.get_history_ids() == []
    assert client.get_queue() == {"queue_running": [], "queue_pending": []}
    assert started.left() == []


def data(media: dict[str, Any]) -> bytes:
    decoded = base64.b64decode(media["data"])
    assert len(decoded) == media["bytes"]
    return decoded


def picture(media: dict[str, Any]) -> Image.Image:
    image = Image.open(io.BytesIO(data(media)))
    image.load()
    assert (Image.MIME[str(image.format)], image.size) == (
        media["mime_type"],
        (media["width"], media["height"]),
    )
    return image


def embedded(media: dict[str, Any]) -> Any:
    """The graph that ComfyUI wrote into a file."""
    text = data(media).decode("latin-1")
    return json.JSONDecoder().raw_decode(text, text.index('{"source"'))[0]


def saving(source: dict[str, Any], **nodes: dict[str, Any]) -> dict[str, Any]:
    return {"source": source, **nodes}


def by_saveimage(comfyui: RealComfyUI, graph: dict[str, Any], folder: str) -> dict[str, bytes]:
    """What SaveImage itself makes of a graph, by file name; the graph's prefixes lie in ``folder``."""
    result = comfyui.running.execute(graph, Deadline())
    root = comfyui.running.process.output_dir
    files = {}
    for reported in result.outputs.values():
        for item in reported["images"]:
            path = root / item["subfolder"] / item["filename"]
            files[item["filename"]] = path.read_bytes()
            path.unlink()
    (root / folder).rmdir()
    return files


@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_equal_saveimages_pixels_names_and_metadata(worker: Worker, channels: int) -> None:
    source = {**PHOTO, "inputs": {**PHOTO["inputs"], "batch": 2, "channels": channels}}
    graph = {
        "source": source,
        "scaled": node(
            "ImageScale",
            image=["source", 0],
            upscale_method="area",
            width=48,
            height=40,
            crop="disabled",
        ),
        "copy": node("RepeatImageBatch", image=["source", 0], amount=1),
        "first": node(
            "SaveImage", images=["source", 0], filename_prefix="set/pic %width% %batch_num%"
        ),
        "again": node("SaveImage", images=["source", 0], filename_prefix="set/other"),
        "once more": node("SaveImage", images=["copy", 0], filename_prefix="set/other"),
        "small": node("SaveImage", images=["scaled", 0], filename_prefix="set/small"),
    }
    graph["first"]["_meta"] = {"title": "Bücher"}
    expected = by_saveimage(worker.comfyui, graph, "set")
    result = worker.run(workflow=graph)
    assert sorted(image["filename"] for image in result["images"]) == sorted(expected)
    assert {image["node_id"] for image in result["images"]} == {
        "first",
        "again",
        "once more",
        "small",
    }
    assert len(expected) == 8
    for image in result["images"]:
        ours, theirs = picture(image), Image.open(io.BytesIO(expected[image["filename"]]))
        assert ours.mode == theirs.mode
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
        assert ours.info == theirs.info
        assert json.loads(ours.info["prompt"]) == graph


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "full"])
def test_without_room_in_memory_the_temp_folder_serves(worker: Worker, gone: bool) -> None:
    raw_dir = worker.comfyui.running.process.raw_dir
    assert raw_dir is not None
    graph = saving(PHOTO, save=node("SaveImage", images=["source", 0], filename_prefix="a"))
    expected = picture(worker.run(workflow=graph)["images"][0]).tobytes()
    with moved_away(raw_dir) if gone else filled(raw_dir):
        assert picture(worker.run(workflow=graph)["images"][0]).tobytes() == expected


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    folder.rmdir()
    try:
        yield
        assert not folder.exists()
    finally:
        folder.mkdir(exist_ok=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """A filesystem of 8 kB in place of a folder."""
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], check=False)
    if mount.returncode != 0:
        pytest.skip("this user may not mount a small filesystem")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_it_works_without_a_folder_in_memory(model_root: Path, tmp_path: Path) -> None:
    with real_comfyui(
        launch_options(model_root, NODE_PACKS, raw_root=tmp_path / "nowhere")
    ) as comfyui:
        assert comfyui.running.process.raw_dir is None
        result = Worker(comfyui).run(
            workflow=saving(
                PHOTO, save=node("SaveImage", images=["source", 0], filename_prefix="a")
            )
        )
        assert picture(result["images"][0]).size == (96, 64)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_the_format_asked_for(worker: Worker, image_format: str) -> None:
    graph = saving(PHOTO, save=node("SaveImage", images=["source", 0], filename_prefix="a"))
    image = picture(worker.run(workflow=graph, output={"format": image_format})["images"][0])
    assert image.format == image_format.upper()
    output = {"format": image_format, "metadata": False}
    bare = worker.run(workflow=graph, output=output)["images"][0]
    assert b"TestPhoto" not in data(bare)
    assert picture(bare).tobytes() == image.tobytes()


def test_the_operators_word_on_metadata_holds(worker: Worker) -> None:
    graph = saving(PHOTO, save=node("SaveImage", images=["source", 0], filename_prefix="a"))
    result = Worker(worker.comfyui, comfy_args="--disable-metadata").run(workflow=graph)
    assert picture(result["images"][0]).info == {}


def test_metadata_hides_the_jobs_folder(worker: Worker) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, format="PNG")
    graph = {
        "load": node("LoadImage", image="example.png"),
        "save": node("SaveImage", images=["load", 0], filename_prefix="a"),
    }
    result = worker.run(workflow=graph, image=base64.b64encode(file.getvalue()).decode())
    workflow = json.loads(picture(result["images"][0]).info["prompt"])
    assert workflow["load"]["inputs"]["image"] == "0_image.png"
    assert workflow["save"] == graph["save"]


def test_two_saved_pictures_a_preview_and_a_text(worker: Worker) -> None:
    graph = saving(
        PHOTO,
        one=node("SaveImage", images=["source", 0], filename_prefix="a"),
        two=node("SaveImageWebsocket", images=["source", 0]),
        shown=node("PreviewImage", images=["source", 0]),
        told=node("PreviewAny", source="zwölf"),
    )
    for _again in range(2):
        result = worker.run(workflow=graph)
        assert sorted(image["node_id"] for image in result["images"]) == ["one", "two"]
        assert len({picture(image).tobytes() for image in result["images"]}) == 1
        (text,) = result["texts"]
        assert text == {
            "type": "text",
            "data": "zwölf",
            "mime_type": "text/plain",
            "node_id": "told",
            "bytes": 6,
        }
    result = worker.run(workflow=graph, output={"temp": True})
    assert sorted(image["node_id"] for image in result["images"]) == ["one", "shown", "two"]


@pytest.mark.parametrize("class_type", ["PreviewImage", "MaskPreview", "PreviewAudio"])
def test_previews_return_when_nothing_was_saved(worker: Worker, class_type: str) -> None:
    graph = {
        "source": PHOTO,
        "mask": node("SolidMask", value=0.5, width=64, height=64),
        "sound": SOUND,
        "shown": {
            "PreviewImage": node("PreviewImage", images=["source", 0]),
            "MaskPreview": node("MaskPreview", mask=["mask", 0]),
            "PreviewAudio": node("PreviewAudio", audio=["sound", 0]),
        }[class_type],
    }
    for _again in range(2):
        result = worker.run(workflow=graph)
        (media,) = result["audio"] if class_type == "PreviewAudio" else result["images"]
        assert media["node_id"] == "shown"


@pytest.mark.parametrize("class_type", ["SaveAnimatedWEBP", "SaveAnimatedPNG"])
def test_an_animation(worker: Worker, class_type: str) -> None:
    options = (
        {"lossless": True, "quality": 80, "method": "default"}
        if class_type == "SaveAnimatedWEBP"
        else {}
    )
    options = options or {"compress_level": 4}
    saved = node(class_type, images=["source", 0], filename_prefix="a", fps=6.0, **options)
    graph = saving(
        FRAMES, save=saved, still=node("SaveImage", images=["source", 0], filename_prefix="b")
    )
    result = worker.run(workflow=graph, output={"format": "jpeg"})
    (media,) = (image for image in result["images"] if image["node_id"] == "save")
    image = picture(media)
    assert image.n_frames == 5  # type: ignore[attr-defined]
    assert embedded(media) == graph
    assert any("as node save saved it" in warning for warning in result["warnings"])


@pytest.mark.parametrize(
    ("mime_type", "nodes"),
    [
        (
            "video/mp4",
            {
                "video": node("CreateVideo", images=["source", 0], fps=8.0),
                "save": node(
                    "SaveVideo",
                    video=["video", 0],
                    filename_prefix="v/a",
                    format="mp4",
                    codec="h264",
                ),
            },
        ),
        (
            "video/webm",
            {
                "save": node(
                    "SaveWEBM",
                    images=["source", 0],
                    filename_prefix="a",
                    codec="vp9",
                    fps=8.0,
                    crf=32.0,
                )
            },
        ),
    ],
)
def test_a_video_plays(worker: Worker, mime_type: str, nodes: dict[str, Any]) -> None:
    graph = saving(
        FRAMES, **nodes, still=node("SaveImage", images=["source", 0], filename_prefix="b")
    )
    (video,) = worker.run(workflow=graph)["videos"]
    assert embedded(video) == graph
    assert (video["mime_type"], video["node_id"]) == (mime_type, "save")
    with av.open(io.BytesIO(data(video))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 5


@pytest.mark.parametrize(
    ("mime_type", "codec", "saved"),
    [
        ("audio/flac", "flac", node("SaveAudio", audio=["source", 0], filename_prefix="audio/a")),
        (
            "audio/mpeg",
            "mp3float",
            node("SaveAudioMP3", audio=["source", 0], filename_prefix="a", quality="128k"),
        ),
        (
            "audio/ogg",
            "opus",
            node("SaveAudioOpus", audio=["source", 0], filename_prefix="a", quality="96k"),
        ),
    ],
)
def test_sound_plays(worker: Worker, mime_type: str, codec: str, saved: dict[str, Any]) -> None:
    (sound,) = worker.run(workflow=saving(SOUND, save=saved))["audio"]
    assert (sound["mime_type"], sound["node_id"]) == (mime_type, "save")
    with av.open(io.BytesIO(data(sound))) as container:
        assert container.streams.audio[0].codec_context.name == codec
        samples = sum(frame.samples for frame in container.decode(audio=0))
        rate = container.streams.audio[0].rate
    assert samples / rate == pytest.approx(0.5, abs=0.1)


def test_a_mesh_and_a_latent(worker: Worker) -> None:
    graph = {
        "mesh": node("TestMesh"),
        "glb": node("SaveGLB", mesh=["mesh", 0], filename_prefix="mesh/a"),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "saved": node("SaveLatent", samples=["latent", 0], filename_prefix="latents/a"),
    }
    files = {file["node_id"]: file for file in worker.run(workflow=graph)["files"]}
    assert files["glb"]["mime_type"] == "model/gltf-binary"
    assert data(files["glb"])[:4] == b"glTF"
    assert files["saved"]["filename"] == "a_00001_.latent"
    assert b"latent_tensor" in data(files["saved"])


def test_linked_prefixes_stay_in_the_jobs_folder(worker: Worker) -> None:
    graph = saving(
        PHOTO,
        name=node("PrimitiveString", value="mine"),
        save=node("SaveImage", images=["source", 0], filename_prefix=["name", 0]),
    )
    assert worker.run(workflow=graph)["images"][0]["filename"] == "mine_00001_.png"
    wide = {**PHOTO, "inputs": {**PHOTO["inputs"], "channels": 5}}
    failing = {
        **graph,
        "wide": wide,
        "fails": node("SaveImage", images=["wide", 0], filename_prefix="b"),
    }
    result = JobRunner(Settings(), worker.comfyui.supervisor, TEMPLATES).run(
        {"id": "test", "input": {"workflow": failing}}, threading.Event()
    )
    assert result["error"].startswith("EXECUTION_FAILED: node fails")
    assert "a picture has 1 to 4 channels, not 5" in result["error"]


@pytest.mark.parametrize("subfolder", ["right", "odd", "none"])
@pytest.mark.parametrize(
    ("output_path", "prefix"), [("", "a"), ("", "v1.5/b/a"), ("sets.x/new", "a"), (".", "b/a")]
)
def test_a_node_that_makes_no_folders_saves(
    worker: Worker, output_path: str, prefix: str, subfolder: str
) -> None:
    paths = {"output_path": output_path, "filename_prefix": prefix, "subfolder": subfolder}
    saved = worker.run(
        workflow=saving(PHOTO, save=node("TestSaver", images=["source", 0], **paths))
    )
    (image,) = saved["images"]
    assert (image["filename"], image["node_id"]) == ("a_0001.png", "save")
    assert picture(image).size == (96, 64)


def test_texts_under_other_keys_come_back(worker: Worker) -> None:
    result = worker.run(workflow=saving(PHOTO, tags=node("TestTagger", image=["source", 0])))
    assert [text["data"] for text in result["texts"]] == ["1girl, solo", "a whole caption"]


def test_garbage_is_searched_after_the_start(worker: Worker) -> None:
    result = worker.run(workflow={"look": node("TestGarbage")})
    assert [text["data"] for text in result["texts"]] == ["True True"]


def require_class(comfyui: RealComfyUI, class_type: str) -> None:
    """Skip the test if this ComfyUI is older than a class."""
    if class_type not in comfyui.defs:
        pytest.skip(f"this ComfyUI has no {class_type}")


def advanced(name: str, bit_depth: str) -> dict[str, Any]:
    """A SaveImageAdvanced of the pictures of ``source``."""
    values = {"format": name, "format.bit_depth": bit_depth, "format.input_color_space": "sRGB"}
    return node("SaveImageAdvanced", images=["source", 0], filename_prefix="set/a b", **values)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_advanced_saver_gives_its_own_pixels(worker: Worker, channels: int) -> None:
    require_class(worker.comfyui, "SaveImageAdvanced")
    source = {**PHOTO, "inputs": {**PHOTO["inputs"], "batch": 2, "channels": channels}}
    graph = saving(source, save=advanced("png", "8-bit"))
    expected = by_saveimage(worker.comfyui, graph, "set")
    assert len(expected) == 2
    result = worker.run(workflow=graph)
    assert sorted(image["filename"] for image in result["images"]) == sorted(expected)
    for image in result["images"]:
        saved = Image.open(io.BytesIO(expected[image["filename"]]))
        assert (picture(image).mode, picture(image).tobytes()) == (saved.mode, saved.tobytes())
        assert json.loads(picture(image).info["prompt"]) == graph
        assert image["node_id"] == "save"


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_advanced_saver_gives_the_wanted_format(worker: Worker, image_format: str) -> None:
    require_class(worker.comfyui, "SaveImageAdvanced")
    graph = saving(PHOTO, save=advanced("png", "8-bit"))
    plain = saving(PHOTO, save=node("SaveImage", images=["source", 0], filename_prefix="a"))
    output = {"format": image_format, "lossless": image_format == "webp"}
    result = worker.run(workflow=graph, output=output)
    assert result.get("warnings", []) == []
    (image,) = result["images"]
    assert picture(image).format == image_format.upper()
    assert (
        picture(image).tobytes()
        == picture(worker.run(workflow=plain, output=output)["images"][0]).tobytes()
    )


@pytest.mark.parametrize(
    ("name", "bit_depth", "mime_type"),
    [("png", "16-bit", "image/png"), ("exr", "32-bit float", "image/x-exr")],
)
def test_deeper_pictures_stay_as_saved(
    worker: Worker, name: str, bit_depth: str, mime_type: str
) -> None:
    require_class(worker.comfyui, "SaveImageAdvanced")
    graph = saving(PHOTO, save=advanced(name, bit_depth))
    ((filename, expected),) = by_saveimage(worker.comfyui, graph, "set").items()
    result = worker.run(workflow=graph, output={"format": "jpeg"})
    (image,) = result["images"]
    assert (image["filename"], image["mime_type"]) == (filename, mime_type)
    assert decoded_frame(data(image)) == decoded_frame(expected)
    assert any(f"is {mime_type}, as node save saved it" in text for text in result["warnings"])


def decoded_frame(content: bytes) -> tuple[str, bytes]:
    """The pixel format and the pixels of a picture with more than 8 bits a channel."""
    with av.open(io.BytesIO(content)) as container:
        frame = next(container.decode(video=0))
    return frame.format.name, b"".join(bytes(plane) for plane in frame.planes)


@pytest.mark.parametrize("class_type", ["SaveImage", "PreviewImage", "SaveImageAdvanced"])
def test_a_graph_goes_on_behind_a_saver(worker: Worker, class_type: str) -> None:
    """Savers have had an output since ComfyUI 0.20 or so."""
    require_class(worker.comfyui, class_type)
    if not worker.comfyui.defs[class_type].outputs:
        pytest.skip(f"{class_type} of this ComfyUI has no output")
    saver = {
        "SaveImage": node("SaveImage", images=["source", 0], filename_prefix="a"),
        "PreviewImage": node("PreviewImage", images=["source", 0]),
        "SaveImageAdvanced": advanced("png", "8-bit"),
    }[class_type]
    graph = saving(
        PHOTO,
        first=saver,
        inverted=node("ImageInvert", image=["first", 0]),
        last=node("SaveImage", images=["inverted", 0], filename_prefix="b"),
    )
    images = worker.run(workflow=graph, output={"temp": True})["images"]
    by_node = {image["node_id"]: np.asarray(picture(image)) for image in images}
    assert by_node.keys() == {"first", "last"}
    assert np.allclose(by_node["last"], 255.0 - by_node["first"], atol=1)


def test_pictures_of_a_job_become_a_batch(worker: Worker) -> None:
    """Three pictures by their names, into the inputs that BatchImagesNode grows."""
    require_class(worker.comfyui, "BatchImagesNode")
    colours = ["teal", "gold", "navy"]
    loaders = {
        f"load{number}": node("LoadImage", image=f"{colour}.png")
        for number, colour in enumerate(colours)
    }
    links: dict[str, Any] = {f"images.image{number}": [f"load{number}", 0] for number in range(3)}
    graph = {
        **loaders,
        "batch": node("BatchImagesNode", **links),
        "save": node("SaveImage", images=["batch", 0], filename_prefix="a"),
    }
    sent = []
    for colour in colours:
        file = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(file, format="PNG")
        sent.append({"name": f"{colour}.png", "image": base64.b64encode(file.getvalue()).decode()})
    images = worker.run(workflow=graph, images=sent)["images"]
    received = [picture(image).convert("RGB").tobytes() for image in images]
    assert received == [Image.new("RGB", (64, 48), colour).tobytes() for colour in colours]


def test_a_video_comes_back_with_its_sound(worker: Worker) -> None:
    is_dynamic = worker.comfyui.defs["SaveVideo"].is_dynamic
    encoding = {"format.codec": "h264"} if is_dynamic else {"codec": "h264"}
    video = node("CreateVideo", images=["source", 0], audio=["sound", 0], fps=10.0)
    save = node(
        "SaveVideo", video=["video", 0], filename_prefix="video/a", format="mp4", **encoding
    )
    graph = saving(FRAMES, sound=SOUND, video=video, save=save)
    (media,) = worker.run(workflow=graph)["videos"]
    assert (media["mime_type"], media["node_id"]) == ("video/mp4", "save")
    with av.open(io.BytesIO(data(media))) as container:
        assert len(list(container.decode(video=0))) == 5
    with av.open(io.BytesIO(data(media))) as container:
        rate = container.streams.audio[0].rate
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert (rate, samples / rate) == (44100, pytest.approx(0.5, abs=0.1))


@pytest.mark.parametrize(
    ("name", "quality", "codec"),
    [("flac", None, "flac"), ("mp3", "128k", "mp3float"), ("opus", "96k", "opus")],
)
def test_sound_of_the_advanced_saver_plays(
    worker: Worker, name: str, quality: str | None, codec: str
) -> None:
    require_class(worker.comfyui, "SaveAudioAdvanced")
    options = {"format": name} | ({"format.quality": quality} if quality else {})
    save = node("SaveAudioAdvanced", audio=["source", 0], filename_prefix="audio/a", **options)
    (sound,) = worker.run(workflow=saving(SOUND, save=save))["audio"]
    assert sound["node_id"] == "save"
    with av.open(io.BytesIO(data(sound))) as container:
        assert container.streams.audio[0].codec_context.name == codec
        assert sum(frame.samples for frame in container.decode(audio=0)) > 0


@pytest.mark.parametrize(
    ("suffix", "mime_type"),
    [
        ("txt", "text/plain"),
        ("csv", "text/csv"),
        ("md", "text/markdown"),
        ("json", "application/json"),
    ],
)
def test_a_saved_text_is_text_and_file(worker: Worker, suffix: str, mime_type: str) -> None:
    require_class(worker.comfyui, "SaveText")
    save = node("SaveText", text=["words", 0], filename_prefix="texts/a", format=suffix)
    graph = {"words": node("PrimitiveString", value="zwölf, 12"), "save": save}
    result = worker.run(workflow=graph)
    assert [(text["data"], text["node_id"]) for text in result["texts"]] == [("zwölf, 12", "save")]
    (file,) = result["files"]
    assert (file["filename"], file["mime_type"]) == (f"a_00001.{suffix}", mime_type)
    assert data(file).decode() == "zwölf, 12"


def test_both_compared_pictures_come_back(worker: Worker) -> None:
    require_class(worker.comfyui, "ImageCompare")
    links: dict[str, Any] = {"image_a": ["source", 0], "image_b": ["inverted", 0]}
    compare = node("ImageCompare", compare_view={"__value__": ["", ""]}, **links)
    graph = saving(PHOTO, inverted=node("ImageInvert", image=["source", 0]), compare=compare)
    images = worker.run(workflow=graph)["images"]
    assert [image["node_id"] for image in images] == ["compare", "compare"]
    first, second = (np.asarray(picture(image).convert("RGB"), float) for image in images)
    assert np.allclose(first, 255 - second, atol=1)
