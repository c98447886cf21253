"""Files that clients send: verified by content, told apart from what only claims to be one."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_worker.errors import InvalidMedia
from comfy_worker.imaging import decoder
from comfy_worker.inputs import files as media
from comfy_worker.inputs import inline_source
from comfy_worker.settings import Settings
from tests import clips, pictures

MAX_PIXELS = 1_000_000
RED = Image.new("RGB", (4, 2), (255, 0, 0))
NOISE = Image.effect_noise((64, 64), 50)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def inputs(folder: Path, **changes: Any) -> media.InputFiles:
    return media.InputFiles(folder / "job", Settings(**changes).input_limits)


def stored(files: media.InputFiles, folder: Path, key: str) -> Image.Image:
    with Image.open(folder / files.names[key]) as image:
        copied: Image.Image = image.copy()
        return copied


def test_base64_and_data_uri_are_alike() -> None:
    plain = pictures.encoded(RED)
    for value in (
        plain,
        f"data:image/png;base64,{plain}",
        f"\n data:image/png;base64,{plain}\n",
        f"DATA:image/png;BASE64,{plain}",
        "\n".join(plain[i : i + 20] for i in range(0, 999, 20)),
    ):
        assert inline_source.decode_base64("image", value) == pictures.file(RED)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xfb\xef", b"\xff\xfe\xfd"])
def test_both_alphabets_of_base64_are_read(data: bytes) -> None:
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        for value in (encoded.decode(), encoded.decode().rstrip("=")):
            assert inline_source.decode_base64("image", value) == data


@pytest.mark.parametrize(
    "value",
    ["not base64!", "AAAAA", "A=AA", "data:image/png;base64,%%%", "data:image/png,abc", "bild.png"],
)
def test_other_texts_are_rejected(value: str) -> None:
    with pytest.raises(InvalidMedia, match="image must be base64, a data URI or a URL"):
        inline_source.decode_base64("image", value)


def test_wrong_types_in_data_uris_do_not_matter(tmp_path: Path) -> None:
    files = inputs(tmp_path)
    files.add_pictures({"image": "data:video/mp4;base64," + text(pictures.file(RED, "JPEG"))})
    assert stored(files, tmp_path, "image").size == (4, 2)


@pytest.mark.parametrize(
    "image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"]
)
def test_pictures_of_every_format_are_read(image_format: str) -> None:
    assert decoder.read_image("image", pictures.file(RED, image_format), MAX_PIXELS).size == (4, 2)


def test_formats_that_need_another_program_are_rejected() -> None:
    with pytest.raises(InvalidMedia, match="image cannot be decoded: the data is not a picture"):
        decoder.read_image("image", pictures.file(RED, "EPS"), MAX_PIXELS)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoder.read_image("image", pictures.file(RED, "JPEG", exif=exif), MAX_PIXELS).size == (
        2,
        4,
    )


def test_cmyk_becomes_rgb() -> None:
    assert (
        decoder.read_image("image", pictures.file(RED.convert("CMYK"), "JPEG"), MAX_PIXELS).mode
        == "RGB"
    )


def test_sixteen_bits_of_grey_become_eight() -> None:
    deep = Image.fromarray(np.array([[0, 0x4000, 0x80FF, 0xFFFF]], np.uint16))
    image = decoder.read_image("image", pictures.file(deep), MAX_PIXELS)
    assert (image.mode, image.tobytes()) == ("L", bytes([0, 0x40, 0x80, 0xFF]))


BROKEN = "is a damaged or incomplete picture"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"just text", "cannot be decoded: the data is not a picture"),
        (b"", "cannot be decoded: the data is not a picture"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "cannot be decoded: the data is not a picture",
        ),
        (pictures.file(NOISE)[:1500], BROKEN),
        (pictures.file(NOISE, "JPEG")[:900], BROKEN),
        (pictures.file(NOISE, "AVIF")[:-40], BROKEN),
        (pictures.bomb(), "has too many pixels; send at most 1,000,000"),
        (pictures.bomb(11_000), "has too many pixels; send at most 1,000,000"),
        (pictures.bomb(1_001), "has too many pixels; send at most 1,000,000"),
    ],
    ids=[
        "text",
        "empty",
        "svg",
        "png-cut",
        "jpeg-cut",
        "avif-cut",
        "bomb",
        "big-bomb",
        "small-bomb",
    ],
)
def test_other_files_are_not_pictures(data: bytes, sentence: str) -> None:
    for read in (decoder.read_image, decoder.read_mask, decoder.read_media):
        with pytest.raises(InvalidMedia, match=f"image {sentence}"):
            read("image", data, MAX_PIXELS)


STREAMED = clips.video(frames=24, movflags="frag_keyframe+empty_moov")
WEBM = clips.video("webm", "libvpx-vp9", 24)


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (clips.video(), ".mp4"),
        (STREAMED, ".mp4"),
        (clips.video("webm", "libvpx-vp9"), ".mkv"),
        (clips.sound(), ".flac"),
        (clips.sound("mp3", "libmp3lame"), ".mp3"),
        (clips.sound("wav", "pcm_s16le"), ".wav"),
        (clips.sound("ipod", "aac"), ".mp4"),
    ],
    ids=["mp4", "streamed-mp4", "webm", "flac", "mp3", "wav", "m4a"],
)
def test_clips_are_detected_by_content_and_kept_unchanged(data: bytes, suffix: str) -> None:
    assert decoder.read_media("clip", data, MAX_PIXELS) == decoder.Clip(data, suffix)


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "data",
    [
        b"just text",
        b"",
        clips.video()[:600],
        *(
            clip[: len(clip) // 2]
            for clip in (STREAMED, WEBM, clips.sound(), clips.video("avi", "mpeg4", 24))
        ),
        PLAYLIST,
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    ],
    ids=["text", "empty", "mp4", "streamed-mp4", "webm", "flac", "avi", "playlist", "concat"],
)
def test_other_files_are_not_clips(data: bytes) -> None:
    with pytest.raises(
        InvalidMedia, match="clip cannot be decoded: the data is not a picture, video or sound"
    ):
        decoder.read_media("clip", data, MAX_PIXELS)


def test_a_video_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(InvalidMedia, match="clip has too many pixels; send at most 3,000"):
        decoder.read_media("clip", clips.video(), 3_000)


def test_a_clip_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="image cannot be decoded: the data is not a picture"):
        inputs(tmp_path).add_pictures({"image": text(clips.video())})


def test_a_mask_is_alpha_channel_or_brightness() -> None:
    grey = Image.new("L", (2, 2), 200)
    assert decoder.read_mask("mask", pictures.file(grey), MAX_PIXELS).tobytes() == bytes([200] * 4)
    clear = Image.new("RGBA", (2, 2), (9, 9, 9, 70))
    assert decoder.read_mask("mask", pictures.file(clear), MAX_PIXELS).tobytes() == bytes([70] * 4)


def test_a_mask_file_reads_alike_from_any_channel(tmp_path: Path) -> None:
    files = inputs(tmp_path)
    files.add_pictures(
        {"image": pictures.encoded(RED), "mask": pictures.encoded(Image.new("L", (1, 1), 200))}
    )
    assert stored(files, tmp_path, "mask").getpixel((0, 0)) == (200, 200, 200, 55)
    assert stored(files, tmp_path, "image").tobytes() == RED.tobytes()


def test_image_and_larger_mask_become_one_file(tmp_path: Path) -> None:
    files = inputs(tmp_path)
    sent = {"image": RED, "mask": Image.new("L", (8, 4), 255), "controlnets.0.image": RED}
    for _ in range(2):  # a job is planned again where a model file has just arrived
        files.add_pictures(
            {key: pictures.encoded(image) for key, image in sent.items()}, merged=True
        )
    assert files.names["image"] == files.names["mask"] != files.names["controlnets.0.image"]
    masked = stored(files, tmp_path, "image")
    assert (masked.size, masked.getpixel((0, 0))) == (RED.size, (255, 0, 0, 0))
    assert len(list((tmp_path / "job").iterdir())) == 2


def test_stored_files_get_names_of_ours(tmp_path: Path) -> None:
    files = inputs(tmp_path)
    sent = {
        "node ../../x.image": pictures.encoded(RED),
        "b" * 900: text(clips.video()),
        "ö": text(clips.sound()),
    }
    files.add_any(sent)
    assert {Path(name).name for name in files.names.values()} == {
        path.name for path in (tmp_path / "job").iterdir()
    }
    assert {name.rpartition("/")[0] for name in files.names.values()} == {"job"}
    assert sorted(Path(name).suffix for name in files.names.values()) == [".flac", ".mp4", ".png"]
    assert (tmp_path / files.names["b" * 900]).read_bytes() == clips.video()


def test_videos_are_no_pictures(tmp_path: Path) -> None:
    avif = pictures.file(RED, "AVIF")
    size = avif.index(b"ispe") + 8
    damaged = [
        clips.video(),
        clips.sound(),
        avif.replace(b"ftypavif", b"ftypmp42", 1),
        avif[:size] + (60_000).to_bytes(4, "big") * 2 + avif[size + 8 :],
    ]
    for data in damaged:
        with pytest.raises(InvalidMedia, match="photo "):
            inputs(tmp_path).add_any({"photo": text(data)}, ["photo"])
    files = inputs(tmp_path)
    files.add_any({"photo": text(avif), "clip": text(clips.video())}, ["photo"])
    assert [Path(name).suffix for name in files.names.values()] == [".png", ".mp4"]


def test_too_many_files_are_rejected_unread(tmp_path: Path) -> None:
    files = inputs(tmp_path, max_inputs=3)
    files.add_pictures({"image": pictures.encoded(RED)})
    with pytest.raises(InvalidMedia, match="the input holds 4 files; send at most 3"):
        files.add_any(dict.fromkeys("abc", "not read"))


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"image is too large; send at most 0.001 MB"):
        inputs(tmp_path, max_input_mb=0.001).add_pictures({"image": text(bytes(1001))})


def test_pictures_of_too_many_pixels_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidMedia, match="the pictures have too many pixels together; send at most 32"
    ):
        inputs(tmp_path, max_input_pixels=8).add_pictures(
            dict.fromkeys("abcde", pictures.encoded(RED))
        )


def test_a_failure_leaves_nothing_running(tmp_path: Path) -> None:
    sent = {str(index): pictures.encoded(RED) for index in range(20)}
    with pytest.raises(InvalidMedia, match="bad cannot be decoded"):
        inputs(tmp_path).add_pictures({"bad": text(b"text"), **sent})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("input")]


def test_urls_and_data_uris_are_inline_sources() -> None:
    assert inline_source.is_inline_source("https://example.com/a.png")
    assert inline_source.is_inline_source("data:image/png;base64,AAAA")
    assert inline_source.is_inline_source("\thttps://example.com/a.png\n")
    assert inline_source.is_url(" https://example.com/a.png")
    assert not inline_source.is_inline_source("example.png")
    assert not inline_source.is_inline_source(["4", 0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pictures_keep_their_pixels(mode: str, tmp_path: Path) -> None:
    image = NOISE.convert("L" if mode == "LA" else "RGB").convert(mode)
    files = inputs(tmp_path)
    files.add_pictures({"image": pictures.encoded(image)})
    assert (read := stored(files, tmp_path, "image")).mode == mode
    assert read.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()
