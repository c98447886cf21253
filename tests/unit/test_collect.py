"""What output nodes report, found and told apart by content."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_worker.errors import NoOutput
from comfy_worker.request.schema import Output
from comfy_worker.response.collect import OutputFile, find_files, find_texts, find_unreported, sniff
from comfy_worker.response.encode import encode
from comfy_worker.response.schema import Text


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, format="PNG")
    return file.getvalue()


def test_files_and_texts_of_all_keys_are_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(png())
    (tmp_path / "b.flac").write_bytes(b"fLaC" + bytes(20))
    outputs: dict[str, dict[str, Any]] = {
        "9": {
            "images": [{"filename": "a.png", "subfolder": "sub", "type": "output"}],
            "animated": [True],
        },
        "8": {"audio": [{"filename": "b.flac", "subfolder": "", "type": "temp"}]},
        "7": {"text": ["one", "zwölf"]},
        "5": {
            "images": [
                {"filename": "c.png", "subfolder": "", "type": "output", "raw_shape": [2, 3, 4]}
            ]
        },
        "6": {"images": [{"filename": "shown.png", "subfolder": "", "type": "input"}]},
    }
    (tmp_path / "c.png").symlink_to(tmp_path / "b.flac")
    folders = {"output": tmp_path, "temp": tmp_path}
    assert find_files(outputs, folders) == [
        OutputFile("9", tmp_path / "sub" / "a.png", "output"),
        OutputFile("8", tmp_path / "b.flac", "temp"),
        OutputFile("5", tmp_path / "c.png", "output", (2, 3, 4)),
    ]
    assert find_texts(outputs) == [
        Text(data="one", node_id="7", bytes=3),
        Text(data="zwölf", node_id="7", bytes=6),
    ]


def test_a_file_counts_once_for_a_node(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    item = {"filename": "a.mp4", "subfolder": "", "type": "output"}
    reported = {"gifs": [item], "videos": [{**item, "format": "video/h264-mp4"}]}
    found = find_files({"9": reported}, {"output": tmp_path})
    assert found == [OutputFile("9", tmp_path / "a.mp4", "output")]


@pytest.mark.parametrize(
    ("reported", "texts"),
    [
        ({"tags": ["1girl, solo"]}, ["1girl, solo"]),
        ({"string": ["a", "b"]}, ["a", "b"]),
        ({"text": [["a line", "another"]]}, ["a line", "another"]),
        ({"text": list("a caption")}, ["a caption"]),
        ({"text": ["a.png", ""]}, ["a.png", ""]),
        ({"result": ["3d/scene.glb", "scene.glb", {"camera": 1}]}, ["3d/scene.glb"]),
        ({"video": ["/view?filename=a.mp4"], "b64": ["data:image/png;base64,AAAA"]}, []),
        (
            {"animated": [True], "value": [5], "note": "alone", "images": [{"filename": "a.png"}]},
            [],
        ),
        ({"caption": ["see https://host/a.png"], "empty": [""]}, ["see https://host/a.png"]),
    ],
)
def test_texts_under_any_key_are_found(reported: dict[str, Any], texts: list[str]) -> None:
    assert [text.data for text in find_texts({"7": reported})] == texts


def test_a_file_in_another_subfolder_is_found(tmp_path: Path) -> None:
    (tmp_path / "job" / "v1.5").mkdir(parents=True)
    (tmp_path / "job" / "v1.5" / "a.png").write_bytes(png())
    reported = {"9": {"images": [{"filename": "a.png", "subfolder": "job/v15", "type": "output"}]}}
    folders = {"output": tmp_path}
    assert find_files(reported, folders) == [
        OutputFile("9", tmp_path / "job" / "v1.5" / "a.png", "output")
    ]
    (tmp_path / "job" / "a.png").write_bytes(png())
    with pytest.raises(NoOutput, match="node 9 reported"):
        find_files(reported, folders)


def test_a_file_of_another_job_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(png())
    with pytest.raises(NoOutput):
        find_files(
            {"9": {"images": [{"filename": "a.png", "subfolder": "job"}]}}, {"output": tmp_path}
        )


def test_files_that_nobody_reported_are_found(tmp_path: Path) -> None:
    assert find_unreported(tmp_path / "job", "9") == []
    (tmp_path / "job" / "sub").mkdir(parents=True)
    (tmp_path / "job" / "sub" / "a.png").write_bytes(png())
    (tmp_path / "job" / "link.png").symlink_to(tmp_path / "job" / "sub" / "a.png")
    assert find_unreported(tmp_path / "job", "9") == [
        OutputFile("9", tmp_path / "job" / "sub" / "a.png", "output")
    ]


@pytest.mark.parametrize("name", ["gone.png", "../outside.png", "gone\0.png", "", "."])
def test_a_reported_but_missing_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.png").write_bytes(png())
    (tmp_path / "output").mkdir()
    outputs = {"9": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}}
    with pytest.raises(NoOutput, match="node 9 reported"):
        find_files(outputs, {"output": tmp_path / "output"})


@pytest.mark.parametrize(
    ("head", "result_list", "mime_type"),
    [
        (png(), "images", "image/png"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "images", "image/webp"),
        (b"\0\0\0\x20ftypisom", "videos", "video/mp4"),
        (b"\x1aE\xdf\xa3\0\0\0\0", "videos", "video/webm"),
        (b"ID3\x04\0\0", "audio", "audio/mpeg"),
        (b"glTF\x02\0\0\0", "files", "model/gltf-binary"),
        (b"\xff\xf3\x40\xc0", "audio", "audio/mpeg"),
        (b"\0\0\0\x20ftypM4A ", "audio", "audio/mp4"),
        (b"\0\0\0\x20ftypqt  ", "videos", "video/quicktime"),
        (b"\0\0\0\x20ftypavif", "images", "image/avif"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a line -->\n<svg>', "images", "image/svg+xml"),
        (b"a text that says <svg", "files", "application/octet-stream"),
        (b"", "files", "application/octet-stream"),
    ],
)
def test_the_kind_is_decided_by_content(head: bytes, result_list: str, mime_type: str) -> None:
    assert sniff(head) == (result_list, mime_type)


@pytest.mark.parametrize(
    ("head", "suffix", "mime_type"),
    [
        (b"a,b\n1,2\n", ".csv", "text/csv"),
        (b"{}", ".json", "application/json"),
        (b"", ".txt", "text/plain"),
        (b"a\0b", ".txt", "application/octet-stream"),
        (png(), ".txt", "image/png"),
        (b"ply\n", ".ply", "application/octet-stream"),
    ],
)
def test_a_suffix_tells_texts_apart(head: bytes, suffix: str, mime_type: str) -> None:
    assert sniff(head, suffix)[1] == mime_type


def test_an_image_carries_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    (image,) = encode([OutputFile("9", path, "output")], Output(), {})
    assert (image.width, image.height, image.size, image.node_id) == (3, 2, len(png()), "9")
    assert image.read() == png()
