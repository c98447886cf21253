"""Model files that are there, and those that models.txt names."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from pathlib import Path

import pytest

from comfy_common import model_folders
from comfy_common.console import Console
from comfy_common.download import digest_of
from comfy_common.errors import SetupError
from comfy_common.models_txt import Entry, Section, parse_models, parse_sections, total_size
from comfy_common.placeholder_names import TOY_CHECKPOINT, TOY_LORA
from comfy_local.toy_model import files
from comfy_setup import models
from comfy_setup.model_selection import selected
from comfy_worker.models.detect import FAMILIES, ModelInfo, identify

TEXT = f"""
# weights
loras/a.safetensors  https://h.example/a#part
[sdxl]   # big
checkpoints/x.safetensors  https://h.example/x  sha256:{"00FF" * 16}  # base
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    return {
        "MODELS_DIR": str(tmp_path / "models"),
        "COMFYUI_DIR": str(tmp_path / "ComfyUI"),
        "VOLUME_DIR": str(tmp_path / "volume"),
        "MODELS_CACHE_DIR": str(tmp_path / "cache"),
    }


def add(environ: dict[str, str], *names: str) -> None:
    for name in names:
        path = Path(environ["MODELS_DIR"]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")


def test_models_txt_has_sections_comments_and_hashes() -> None:
    assert parse_models(TEXT) == [
        Entry("", "loras/a.safetensors", "https://h.example/a#part", ""),
        Entry("sdxl", "checkpoints/x.safetensors", "https://h.example/x", "00ff" * 16),
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
        f"loras/x https://h/x sha256:{'00' * 32} more",
        "loras/x https://h/x sha256:00",
        "loras/ https://h/x",
    ],
)
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(SetupError, match=r"models\.txt, line 2: write `folder/file  URL"):
        parse_models(f"# first\n{line}\n")


def test_model_files_are_found_in_every_root(environ: dict[str, str]) -> None:
    add(
        environ,
        "checkpoints/sub/a.safetensors",
        "loras/b.pt",
        "loras/readme.txt",
        "stray.safetensors",
    )
    add(environ, ".parts/loras/half.safetensors")
    own = Path(environ["COMFYUI_DIR"]) / "models" / "loras"
    own.mkdir()
    (own / "c.ckpt").touch()
    (own / "put_loras_here").touch()
    found = model_folders.model_files(models.folders(environ))
    names = {
        folder: [path.name for paths in by.values() for path in paths]
        for folder, by in found.items()
    }
    assert names == {"checkpoints": ["a.safetensors"], "loras": ["c.ckpt", "b.pt"]}
    assert model_folders.where(found["loras"]) == f"{own} (1), {environ['MODELS_DIR']}/loras (1)"


def test_a_real_checkpoint_needs_no_toy(environ: dict[str, str]) -> None:
    add(environ, "checkpoints/mine.safetensors", f"checkpoints/{TOY_CHECKPOINT}")
    stream = io.StringIO()
    assert models.ensure_checkpoint(Console(stream), environ) is False
    assert stream.getvalue() == ""


HEADER = b'{"__metadata__":{"a":"b"},"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + b"xyz"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.safetensors", WHOLE, ""),
        ("a.sft", WHOLE[:-1], "is cut short: 88 of 89 bytes"),
        ("a.SFT", WHOLE[:20], "is cut short in its header"),
        ("a.safetensors", b"<html>a web page</html>", "is not a safetensors file but a web page"),
        ("a.ckpt", b"", "is empty"),
        ("a.ckpt", b"a pickle", ""),
    ],
)
def test_a_truncated_or_damaged_file_is_reported(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert models.damage(tmp_path / name) == problem
    assert (
        models.damage(tmp_path / "none.safetensors") == "cannot be read: No such file or directory"
    )


def ensure_checkpoint(environ: dict[str, str]) -> str:
    """Ensure a checkpoint where there is no real one; give what the console says."""
    stream = io.StringIO()
    assert models.ensure_checkpoint(Console(stream), environ) is True
    return stream.getvalue()


def test_without_checkpoint_the_toy_is_installed(environ: dict[str, str]) -> None:
    add(environ, "checkpoints/placeholder-sd15.safetensors")  # from an earlier version
    output = ensure_checkpoint(environ)
    assert "Unpacking the toy model" in output
    assert "a toy model of 5 MB draws coloured shapes" in output
    assert f"put a .safetensors file into {environ['MODELS_DIR']}/checkpoints" in output
    toy = Path(environ["MODELS_DIR"]) / "checkpoints" / TOY_CHECKPOINT
    assert identify(toy) == ModelInfo("checkpoint", FAMILIES["toy"])
    assert toy.stat().st_blocks * 512 < toy.stat().st_size / 4
    assert [path.name for path in toy.parent.iterdir() if path.suffix == ".part"] == []
    lora = Path(environ["MODELS_DIR"]) / "loras" / TOY_LORA
    assert identify(lora) == ModelInfo("lora", FAMILIES["toy"])


def test_the_toy_goes_into_the_cache_otherwise(environ: dict[str, str], tmp_path: Path) -> None:
    environ["MODELS_CACHE_DIR"] = str(tmp_path / "cache")
    Path(environ["MODELS_DIR"]).write_text("a file in place of a folder that cannot be written")
    assert f"{environ['MODELS_DIR']}: Not a directory" in ensure_checkpoint(environ)
    assert digest_of(tmp_path / "cache" / "checkpoints" / TOY_CHECKPOINT) == files.SHA256
    assert (tmp_path / "cache" / "loras" / TOY_LORA).is_file()
    assert "Unpacking" not in ensure_checkpoint(environ)


def test_no_folder_for_the_toy_is_an_error(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environ |= {"MODELS_DIR": f"{tmp_path}/file", "MODELS_CACHE_DIR": f"{tmp_path}/file/cache"}
    with pytest.raises(OSError, match="Not a directory"):
        ensure_checkpoint(environ)


def test_an_installed_toy_is_kept(environ: dict[str, str]) -> None:
    ensure_checkpoint(environ)
    toy = Path(environ["MODELS_DIR"]) / "checkpoints" / TOY_CHECKPOINT
    before = toy.stat().st_mtime_ns
    assert "Unpacking" not in ensure_checkpoint(environ)
    assert toy.stat().st_mtime_ns == before


def test_a_toy_of_an_earlier_version_is_replaced(environ: dict[str, str]) -> None:
    ensure_checkpoint(environ)
    toy = Path(environ["MODELS_DIR"]) / "checkpoints" / TOY_CHECKPOINT
    os.utime(toy, (1, 1))
    assert "Unpacking" in ensure_checkpoint(environ)
    assert "Unpacking" not in ensure_checkpoint(environ)


def test_a_damaged_toy_is_installed_again(environ: dict[str, str]) -> None:
    add(environ, f"checkpoints/{TOY_CHECKPOINT}")
    assert "Unpacking" in ensure_checkpoint(environ)
    toy = Path(environ["MODELS_DIR"]) / "checkpoints" / TOY_CHECKPOINT
    assert digest_of(toy) == files.SHA256


def test_a_damaged_packed_toy_is_named(tmp_path: Path) -> None:
    packed = tmp_path / "toy.safetensors.gz"
    contents = (
        gzip.compress(b"other weights"),
        files.PACKED.read_bytes()[:100_000],
        b"not gzip",
        files.PACKED.read_bytes()[:1000] + bytes(1000),
    )
    for content in contents:
        packed.write_bytes(content)
        with pytest.raises(SetupError, match="is damaged: restore it with `git checkout"):
            files.unpack(packed, tmp_path / "checkpoints" / "toy.safetensors")
        assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.fixture
def listed(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    (tmp_path / "models.txt").write_text(TEXT)
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    return environ


def test_installed_and_missing_models_are_listed(
    listed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    add(listed, "loras/a.safetensors")
    assert models.list_models(listed, []) == 0
    output = capsys.readouterr().out
    assert f"present  {listed['MODELS_DIR']}/loras/a.safetensors" in output
    assert "missing  checkpoints/x.safetensors  https://h.example/x" in output
    assert models.list_models(listed, ["sdxl"]) == 0
    assert "present" not in capsys.readouterr().out


def test_check_fails_for_missing_damaged_or_wrong_files(
    listed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def check(only: str = "sdxl") -> tuple[int, str]:
        return models.check_models(listed, [only]), capsys.readouterr().out

    assert check() == (1, "missing  checkpoints/x.safetensors\n")
    path = Path(listed["MODELS_DIR"]) / "checkpoints" / "x.safetensors"
    add(listed, "checkpoints/x.safetensors")
    assert check() == (1, f"damaged  {path}  is not a safetensors file but something else\n")
    path.write_bytes(WHOLE)
    assert check() == (1, f"damaged  {path}  is not the file of models.txt: its sha256 differs\n")
    text = TEXT.replace("00FF" * 16, hashlib.sha256(WHOLE).hexdigest())
    (Path(listed["MODELS_DIR"]).parent / "models.txt").write_text(text)
    assert check() == (0, f"right    {path}\n")


def test_a_file_of_another_hash_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(WHOLE)
    assert models.damage(tmp_path / "a.ckpt", hashlib.sha256(WHOLE).hexdigest()) == ""
    assert models.damage(tmp_path / "a.ckpt", "00" * 32).endswith("its sha256 differs")


def test_a_binary_models_txt_is_reported(listed: dict[str, str]) -> None:
    (Path(listed["MODELS_DIR"]).parent / "models.txt").write_bytes(
        b"loras/\xff https://h.example/a"
    )
    with pytest.raises(SetupError, match=r"models\.txt is not UTF-8 text"):
        models.listed([], listed)


def test_one_file_can_be_named(listed: dict[str, str]) -> None:
    (entry,) = models.listed(["checkpoints/x.safetensors"], listed)
    assert entry.url == "https://h.example/x"


def test_a_template_of_the_volume_can_be_named(listed: dict[str, str]) -> None:
    folder = Path(listed["VOLUME_DIR"]) / "workflows"
    folder.mkdir(parents=True)
    needs = [
        {"folder": "loras", "file": "z.safetensors", "url": "https://h.example/z"},
        {"folder": "vae", "file": "y"},
    ]
    (folder / "mine.params.json").write_text(json.dumps({"needs": needs}))
    (folder / "odd.params.json").write_text('{"needs": [{"url": "x"}]}')
    assert models.listed(["mine"], listed) == [
        Entry("", "loras/z.safetensors", "https://h.example/z", "")
    ]
    with pytest.raises(SetupError, match=r"the `needs` of .*odd\.params\.json cannot be read"):
        models.listed(["odd"], listed)
    with pytest.raises(SetupError, match="has no section"):
        models.listed(["../mine"], listed)


SECTIONS = """
[wan22-t2v]  size:38GB  family:wan22  family:wan  licence:Apache-2.0
vae/w.safetensors  https://h.example/w  size:254MB
[wan22-i2v]  family:wan22
vae/w.safetensors   https://h.example/w  size:254MB
loras/i.safetensors  https://h.example/i  sha256:{digest}  size:1.2GB
[txt2img]
checkpoints/sd.safetensors  https://h.example/sd
""".format(digest="ab" * 32)


def test_an_empty_section_says_what_to_write() -> None:
    text = "[mine]\n# missing: checkpoints/a.safetensors\n"
    with pytest.raises(SetupError, match=r"section \[mine\] of models\.txt names no files: write"):
        selected(text, ["mine"], {})


def test_sections_state_sizes_families_and_licences() -> None:
    sections = parse_sections(SECTIONS)
    assert sections == {
        "wan22-t2v": Section("wan22-t2v", 38 * 10**9, ("wan22", "wan"), "Apache-2.0"),
        "wan22-i2v": Section("wan22-i2v", 0, ("wan22",)),
        "txt2img": Section("txt2img"),
    }
    entries = parse_models(SECTIONS)
    assert [entry.size for entry in entries] == [254_000_000, 254_000_000, 1_200_000_000, 0]
    assert entries[2].sha256 == "ab" * 32
    assert total_size(sections["wan22-i2v"], entries[1:3]) == 1_454_000_000
    assert total_size(sections["txt2img"], entries[3:]) == 0
    assert total_size(sections["wan22-t2v"], [entries[0], entries[3]]) == 38 * 10**9


@pytest.mark.parametrize(
    "line", ["[a] big", "[a] size:9", "loras/x https://h/x size:9TB", "x/y https://h/y size:1GB z"]
)
def test_unreadable_sizes_are_errors(line: str) -> None:
    with pytest.raises(SetupError, match=r"models\.txt, line 1: write"):
        parse_models(line)


@pytest.mark.parametrize("name", ["wan22", "Wan 2.2", "WAN"])
def test_a_family_can_be_named(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    (tmp_path / "models.txt").write_text(SECTIONS)
    found = [entry.path for entry in models.listed([name], environ)]
    expected = ["vae/w.safetensors", "loras/i.safetensors"]
    assert found == (expected[:1] if name == "WAN" else expected)


@pytest.mark.parametrize(
    ("name", "near"),
    [("wan22-t2", "wan22-t2v"), ("wan23", "wan22"), ("txt2image", "txt2img"), ("wan", "wan22")],
)
def test_an_unknown_name_gets_a_hint(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    (tmp_path / "models.txt").write_text(SECTIONS.replace("family:wan ", ""))
    with pytest.raises(SetupError, match=rf"has no section {name}: .*did you mean .*{near}"):
        models.listed([name], environ)


def test_the_list_shows_sections_and_sizes(
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    (tmp_path / "models.txt").write_text(SECTIONS)
    assert models.list_models(environ, []) == 0
    shown = capsys.readouterr().out
    assert "[wan22-t2v]  about 254 MB; family wan22, wan; licence Apache-2.0" in shown
    assert "[txt2img]  size not stated; licence: see the model's page" in shown
    assert "missing  loras/i.safetensors  https://h.example/i  1.2 GB" in shown


def test_folders_are_found_without_comfyui(environ: dict[str, str], tmp_path: Path) -> None:
    for name in ("volume/models/unet", "volume/models/vae", "models/vae"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ComfyUI" / "models").rmdir()
    (tmp_path / "ComfyUI").rmdir()
    found = models.folders(environ)
    assert found["diffusion_models"] == [tmp_path / "volume/models/unet"]
    assert found["vae"] == [tmp_path / "models/vae", tmp_path / "volume/models/vae"]


def test_an_unknown_section_error_lists_the_known(listed: dict[str, str]) -> None:
    with pytest.raises(SetupError, match=r"has no section flux: it has .*sdxl"):
        models.list_models(listed, ["flux"])


def test_missing_models_txt_and_models_are_no_failure(
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "none.txt")
    assert models.list_models(environ, []) == 0
    assert capsys.readouterr().out == ""
