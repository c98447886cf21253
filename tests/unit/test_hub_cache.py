"""Models in caches of Hugging Face: RunPod's cached models, and the user's own."""

from __future__ import annotations

import errno
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from comfy_common import hub_cache, paths
from comfy_common.console import Console
from comfy_common.sources import read_source
from comfy_setup import doctor, fetch_models, models
from comfy_worker.comfyui_boot import _launch_options
from comfy_worker.deadline import Deadline
from comfy_worker.models import downloads
from comfy_worker.models.cached import cached_models
from comfy_worker.models.downloads import ModelsOnDemand
from comfy_worker.settings import Settings
from tests.hub_caches import REVISION, add_repository
from tests.hub_server import hub_server, weights

DATA = weights()
HUB = "https://huggingface.co"
SPLIT, PLAIN, FLAT = "Comfy-Org/z_image", "Comfy-Org/Krea-2", "black-forest-labs/FLUX.2"
TEXT = f"""
[split]
diffusion_models/z.safetensors  {HUB}/{SPLIT}/resolve/main/split_files/diffusion_models/z.safetensors
[renamed]
vae/our-name.safetensors  {HUB}/{FLAT}/resolve/main/sub/their-name.safetensors
[other]
vae/other.safetensors  {HUB}/{FLAT}/resolve/v2/sub/their-name.safetensors
"""


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A volume with RunPod's cache of three repositories, one in each layout."""
    volume = tmp_path / "volume"
    hub = volume / "huggingface-cache" / "hub"
    add_repository(hub, SPLIT, {"split_files/diffusion_models/z.safetensors": DATA})
    add_repository(hub, PLAIN, {"vae/k.safetensors": DATA, "README.md": b"# Krea"})
    add_repository(hub, FLAT, {"sub/their-name.safetensors": DATA})
    (tmp_path / "models.txt").write_text(TEXT)
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    monkeypatch.setattr("comfy_worker.models.cached.MODELS_TXT", tmp_path / "models.txt")
    return {
        "MODELS_DIR": str(tmp_path / "models"),
        "COMFYUI_DIR": str(tmp_path / "ComfyUI"),
        "VOLUME_DIR": str(volume),
        "MODELS_CACHE_DIR": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
    }


def hub_of(environ: dict[str, str]) -> Path:
    return Path(environ["VOLUME_DIR"]) / "huggingface-cache" / "hub"


def snapshot_of(environ: dict[str, str], repo: str) -> Path:
    return hub_of(environ) / f"models--{repo.replace('/', '--')}" / "snapshots" / REVISION


def test_snapshots_with_model_folders_are_roots(environ: dict[str, str]) -> None:
    roots = [
        snapshot_of(environ, PLAIN),
        snapshot_of(environ, SPLIT) / "split_files",
    ]
    assert [root for root in paths.model_roots(environ) if "snapshots" in root.parts] == roots
    settings = Settings.from_env(environ)
    assert set(roots) < set(settings.model_roots)
    assert settings.model_roots[-1] == Path(environ["MODELS_CACHE_DIR"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "hf/hub"),
        ({"HF_HUB_CACHE": "own"}, "own"),
        ({"HUGGINGFACE_HUB_CACHE": "older"}, "older"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "xdg"}, "xdg/huggingface/hub"),
        ({"HF_HOME": "", "HOME": "home"}, "home/.cache/huggingface/hub"),
    ],
)
def test_the_users_own_cache_is_found(
    environ: dict[str, str], tmp_path: Path, changes: dict[str, str], expected: str
) -> None:
    changed = {name: str(tmp_path / value) if value else "" for name, value in changes.items()}
    hubs = paths.hub_caches({**environ, **changed})
    assert hubs == [hub_of(environ), tmp_path / expected]
    add_repository(tmp_path / expected, "me/mine", {"loras/l.safetensors": DATA})
    roots = paths.model_roots({**environ, **changed})
    assert tmp_path / expected / "models--me--mine" / "snapshots" / REVISION in roots


def test_a_repository_for_diffusers_is_no_root(environ: dict[str, str]) -> None:
    files = {"model_index.json": b"{}", "vae/diffusion_pytorch_model.safetensors": DATA}
    add_repository(hub_of(environ), "owner/diffusers", files)
    snapshots = hub_cache.snapshots([hub_of(environ)])
    assert not any("owner--diffusers" in str(root) for root in hub_cache.model_roots(snapshots))


def test_main_means_the_revision_of_its_ref(environ: dict[str, str]) -> None:
    old = add_repository(hub_of(environ), "o/r", {"vae/a.safetensors": DATA}, revision="0" * 40)
    new = add_repository(hub_of(environ), "o/r", {"vae/a.safetensors": DATA}, revision="f" * 40)
    snapshots = hub_cache.snapshots([hub_of(environ)])
    for url, expected in (
        ("hf:o/r/vae/a.safetensors", new),
        (f"hf:o/r@{'0' * 40}/vae/a.safetensors", old),
        ("hf:O/R/vae/a.safetensors", new),
        ("hf:o/r@v1/vae/a.safetensors", None),
        ("hf:o/r/vae/b.safetensors", None),
        ("https://h.example/o/r/resolve/main/vae/a.safetensors", None),
    ):
        found = hub_cache.find_source(read_source(url), snapshots)
        assert found == (expected and expected / "vae/a.safetensors")


def test_a_cache_without_refs_uses_its_snapshot(environ: dict[str, str]) -> None:
    snapshot = add_repository(hub_of(environ), "o/r", {"vae/a.safetensors": DATA})
    (snapshot.parent.parent / "refs" / "main").unlink()
    snapshots = hub_cache.snapshots([hub_of(environ)])
    assert snapshot in hub_cache.model_roots(snapshots)


def test_an_unfinished_download_is_not_used(environ: dict[str, str]) -> None:
    (snapshot_of(environ, FLAT) / "sub/their-name.safetensors").resolve().unlink()
    assert cached_models(Settings.from_env(environ)) == {}


@pytest.mark.parametrize("name", ["version.txt", "models--broken", "datasets--a--b"])
def test_other_things_in_a_cache_are_ignored(environ: dict[str, str], name: str) -> None:
    before = hub_cache.snapshots([hub_of(environ)])
    path = hub_of(environ) / name
    path.write_text("1") if "." in name else (path / "snapshots" / "x").mkdir(parents=True)
    assert hub_cache.snapshots([hub_of(environ), path, hub_of(environ) / "none"]) == before


def test_a_needed_file_gets_the_wanted_name(environ: dict[str, str]) -> None:
    folder = Path(environ["VOLUME_DIR"]) / "workflows"
    folder.mkdir()
    needs = [
        {
            "folder": "loras",
            "file": "l.safetensors",
            "url": f"hf:{FLAT}/sub/their-name.safetensors",
        },
        {"folder": "loras", "file": "no-url.safetensors"},
    ]
    (folder / "mine.params.json").write_text(json.dumps({"needs": needs}))
    (folder / "broken.params.json").write_text("{")
    their_file = snapshot_of(environ, FLAT) / "sub" / "their-name.safetensors"
    found = cached_models(Settings.from_env(environ))
    assert found["vae/our-name.safetensors"] == found["loras/l.safetensors"] == their_file
    assert "diffusion_models/z.safetensors" not in found, "a model root has it"
    assert "vae/other.safetensors" not in found, "it is another revision"
    options = _launch_options(Settings.from_env(environ))
    assert options.cached_models == found
    assert options.hub_caches[0] == hub_of(environ)


def test_models_are_listed_and_checked_in_caches(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    their_file = snapshot_of(environ, FLAT) / "sub" / "their-name.safetensors"
    assert models.list_models(environ, ["renamed"]) == 0
    assert f"present  {their_file}" in capsys.readouterr().out
    assert models.check_models(environ, ["renamed", "split"]) == 0
    shown = capsys.readouterr().out
    assert f"right    {their_file}" in shown
    assert f"right    {snapshot_of(environ, SPLIT)}/split_files" in shown


def test_cached_models_are_not_downloaded(environ: dict[str, str]) -> None:
    stream = io.StringIO()
    code = fetch_models.fetch_models(Console(stream), environ, ["renamed", "split"])
    assert code == 0
    assert "vae/our-name.safetensors is in a cache of Hugging Face" in stream.getvalue()
    assert "All files are present." in stream.getvalue()
    assert not (Path(environ["MODELS_DIR"]) / "vae").exists()


def test_doctor_names_cached_models(environ: dict[str, str]) -> None:
    rows = [finding.text for finding in doctor._cached_models(environ)]
    assert rows == [
        f"{PLAIN}: model folders in {snapshot_of(environ, PLAIN)}",
        f"{SPLIT}: model folders in {snapshot_of(environ, SPLIT)}/split_files; "
        "has diffusion_models/z.safetensors",
        f"{FLAT}: has vae/our-name.safetensors",
    ]


def test_a_job_uses_a_cached_file_without_download(environ: dict[str, str]) -> None:
    settings = Settings.from_env({**environ, "HF_ENDPOINT": "http://127.0.0.1:9"})
    reference = ("vae", f"hf:{FLAT}/sub/their-name.safetensors")
    on_demand = ModelsOnDemand(settings)
    with on_demand.job(lambda _message: None, Deadline()) as job:
        name = job.fetch([reference])[reference]
        file = Path(environ["MODELS_CACHE_DIR"]) / "vae" / name
        assert file.is_symlink()
        assert file.read_bytes() == DATA
    # A cache that is gone is no file: the next job must download.
    (snapshot_of(environ, FLAT) / "sub/their-name.safetensors").unlink()
    assert not file.is_file()


def test_a_hanging_cache_does_not_hold_a_job(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(downloads, "CACHE_ANSWER_S", 0.05)

    def hang(_hubs: object) -> list[hub_cache.Snapshot]:
        go_on.wait()
        return []

    monkeypatch.setattr(hub_cache, "snapshots", hang)
    with hub_server() as hub:
        hub.files[f"{FLAT}/sub/their-name.safetensors"] = DATA
        on_demand = ModelsOnDemand(Settings.from_env({**environ, "HF_ENDPOINT": hub.url}))
        reference = ("vae", f"hf:{FLAT}/sub/their-name.safetensors")
        with on_demand.job(lambda _message: None, Deadline()) as job:
            name = job.fetch([reference])[reference]
    go_on.set()
    file = Path(environ["MODELS_CACHE_DIR"]) / "vae" / name
    assert file.is_file()
    assert not file.is_symlink()


def test_an_unreadable_repository_is_skipped(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def stale(path: Path, *args: Any, **options: Any) -> str:
        if "Krea-2" in str(path):
            raise OSError(errno.ESTALE, "Stale file handle")
        return read_text(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", stale)
    found = {snapshot.repo for snapshot in hub_cache.snapshots([hub_of(environ)])}
    assert found == {SPLIT, FLAT}
