"""Model files that are there, and those that models.txt names."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from comfy_setup import models, paths
from comfy_setup.console import Console, SetupError
from comfy_setup.models_txt import Entry, parse_models

TEXT = """
# weights
loras/a.safetensors  https://h.example/a#part
[sdxl]   # big
checkpoints/x.safetensors  https://h.example/x  sha256:00ff  # base
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    return {"MODELS_DIR": str(tmp_path / "models"), "COMFYUI_DIR": str(tmp_path / "ComfyUI")}


def add(environ: dict[str, str], *names: str) -> None:
    for name in names:
        path = Path(environ["MODELS_DIR"]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")


def test_models_txt_is_read_with_sections_comments_and_hashes() -> None:
    assert parse_models(TEXT) == [
        Entry("", "loras/a.safetensors", "https://h.example/a#part", ""),
        Entry("sdxl", "checkpoints/x.safetensors", "https://h.example/x", "00ff"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "x.safetensors https://h/x",
        "loras/x",
        "loras/x nowhere",
        "/loras/x https://h/x",
        "loras/../../x https://h/x",
        "loras/x https://h/x md5:00",
        "loras/x https://h/x sha256:00 more",
    ],
)
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(SetupError, match=r"models\.txt, line 2: write `folder/file  URL"):
        parse_models(f"# first\n{line}\n")


def test_model_files_are_found_by_folder_in_every_root(environ: dict[str, str]) -> None:
    add(environ, "checkpoints/sub/a.safetensors", "loras/b.pt", "loras/readme.txt", "stray.safetensors")
    own = Path(environ["COMFYUI_DIR"]) / "models" / "loras"
    own.mkdir()
    (own / "c.ckpt").touch()
    (own / "put_loras_here").touch()
    found = models.model_files(environ)
    assert {folder: [path.name for path in files] for folder, files in found.items()} == {
        "checkpoints": ["a.safetensors"],
        "loras": ["b.pt", "c.ckpt"],
    }


def test_a_network_volume_is_a_model_root_only_where_it_is(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "RUNPOD_VOLUME", tmp_path / "volume")
    own = Path(environ["MODELS_DIR"])
    assert paths.model_roots(environ) == [own]
    (tmp_path / "volume" / "ComfyUI" / "models").mkdir(parents=True)
    assert paths.model_roots(environ) == [own, tmp_path / "volume" / "ComfyUI" / "models"]
    assert paths.model_roots({})[0] == paths.REPO / "models"


def test_a_real_checkpoint_needs_no_placeholder(environ: dict[str, str]) -> None:
    add(environ, "checkpoints/mine.safetensors", "checkpoints/placeholder-sd15.safetensors")
    stream = io.StringIO()
    assert models.ensure_checkpoint(Console(stream), environ) is False
    assert stream.getvalue() == ""


HEADER = b'{"__metadata__":{"a":"b"},"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + b"xyz"


@pytest.mark.parametrize(
    ("name", "content", "whole"),
    [
        ("a.safetensors", WHOLE, True),
        ("a.sft", WHOLE[:-1], False),
        ("a.safetensors", WHOLE[:20], False),
        ("a.safetensors", WHOLE[:5], False),
        ("a.safetensors", b"", False),
        ("a.safetensors", b"<html>a web page</html>", False),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]", False),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}", True),
        ("a.safetensors", (200_000).to_bytes(8, "little") + b"[" * 200_000, False),
        ("a.ckpt", b"", False),
        ("a.ckpt", b"a pickle", True),
    ],
)
def test_a_file_that_is_cut_short_or_damaged_is_not_whole(
    tmp_path: Path, name: str, content: bytes, whole: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    assert models.is_whole(tmp_path / name) is whole
    assert not models.is_whole(tmp_path / "none.safetensors")


def test_a_lone_placeholder_is_kept_and_told_of(environ: dict[str, str]) -> None:
    add(environ, "checkpoints/placeholder-sd15.safetensors")
    stream = io.StringIO()
    assert models.ensure_checkpoint(Console(stream), environ) is True
    assert "noise" in stream.getvalue()
    assert f"put a .safetensors file into {environ['MODELS_DIR']}/checkpoints" in stream.getvalue()
    assert "Making" not in stream.getvalue()


@pytest.fixture
def listed(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "models.txt").write_text(TEXT)
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    return environ


def test_a_missing_file_is_listed_and_fails_only_where_its_section_is_asked_for(
    listed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    add(listed, "loras/a.safetensors")
    assert models.list_models(listed, []) == 0
    said = capsys.readouterr().out
    assert "present  [] loras/a.safetensors" in said
    assert "missing  [sdxl] checkpoints/x.safetensors  https://h.example/x" in said
    assert "does not download yet" in said
    assert models.list_models(listed, ["sdxl"]) == 1
    assert "[] loras" not in capsys.readouterr().out
    add(listed, "checkpoints/x.safetensors")
    assert models.list_models(listed, ["sdxl"]) == 0


def test_an_unknown_section_is_named_with_those_there_are(listed: dict[str, str]) -> None:
    with pytest.raises(SetupError, match=r"has no section flux: it has .*sdxl"):
        models.list_models(listed, ["flux"])


def test_no_models_txt_and_no_models_is_no_failure(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "none.txt")
    assert models.list_models(environ, []) == 0
    assert "No model files in" in capsys.readouterr().out
