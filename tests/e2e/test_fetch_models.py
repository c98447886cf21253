"""`comfy_setup models`: what models.txt names, fetched from a server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_setup import fetch_models as module
from comfy_setup import models
from comfy_setup.fetch_models import confirm_all, fetch_models, fetch_real
from tests.hub_server import HubServer, hub_server, weights

pytestmark = pytest.mark.e2e

DATA = weights()
HUB = "https://huggingface.co"
TEXT = f"""
[sd]
checkpoints/a.safetensors  {HUB}/owner/plain/resolve/main/a.safetensors  sha256:{hashlib.sha256(DATA).hexdigest()}
loras/b.safetensors        {HUB}/owner/plain/resolve/main/sub/b.safetensors
[gated]
checkpoints/a.safetensors  {HUB}/owner/plain/resolve/main/a.safetensors
vae/c.safetensors          {HUB}/owner/gated/resolve/main/c.safetensors
[sd-turbo]
checkpoints/sd_turbo.safetensors  {HUB}/owner/plain/resolve/main/a.safetensors
"""


class Command:
    """The command, and what it said."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.environ = {
            "MODELS_DIR": str(folder / "models"),
            "COMFYUI_DIR": str(folder / "ComfyUI"),
            "VOLUME_DIR": str(folder / "volume"),
            "MODELS_CACHE_DIR": str(folder / "cache"),
            "HF_ENDPOINT": hub.url,
        }
        self.root = folder / "models"
        self.output = ""

    def __call__(self, *only: str) -> int:
        stream = io.StringIO()
        code = fetch_models(Console(stream), self.environ, only)
        self.output = stream.getvalue()
        return code

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()
        )


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        for name in ("plain/a", "plain/sub/b", "gated/c"):
            server.files[f"owner/{name}.safetensors"] = DATA
        yield server


@pytest.fixture
def command(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "models.txt").write_text(TEXT)
    monkeypatch.setattr(models, "MODELS_TXT", tmp_path / "models.txt")
    return Command(hub, tmp_path)


def test_the_files_of_a_section_are_fetched_once(command: Command, hub: HubServer) -> None:
    assert command("sd") == 0
    assert command.files() == ["checkpoints/a.safetensors", "loras/b.safetensors"]
    assert sorted(path.name for path in command.root.iterdir()) == ["checkpoints", "loras"]
    (mode,) = {stat.S_IMODE((command.root / name).stat().st_mode) for name in command.files()}
    assert mode & 0o044, "an image may run it as another user"
    assert "2 of 2 files downloaded." in command.output
    hub.seen.clear()
    assert command("sd") == 0
    assert command.output == "All files are present.\n"
    assert hub.seen == []


def test_a_damaged_file_is_downloaded_again(command: Command) -> None:
    path = command.root / "checkpoints" / "a.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA[:-1])
    assert command("sd") == 0
    assert (
        f"{path} is cut short: {len(DATA) - 1} of {len(DATA)} bytes: downloading it again"
        in command.output
    )
    assert path.read_bytes() == DATA


def test_a_failed_download_does_not_stop_others(command: Command) -> None:
    assert command() == 1
    assert (
        "Error: hf:owner/gated/c.safetensors: its licence must be accepted first" in command.output
    )
    assert "3 of 4 files downloaded." in command.output
    assert command.files() == [
        "checkpoints/a.safetensors",
        "checkpoints/sd_turbo.safetensors",
        "loras/b.safetensors",
    ]


def test_files_too_large_for_the_disk_are_refused(
    command: Command, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": 10_000})
    )
    assert command("sd") == 1
    assert "b.safetensors needs 100 kB, its disk has 10 kB free: free some space" in command.output
    assert command.files() == []
    assert hub.served() == []


def test_models_txt_errors_are_reported_before_downloading(
    command: Command, hub: HubServer
) -> None:
    models.MODELS_TXT.write_text(TEXT + "loras/d.safetensors  ftp://h.example/d.safetensors\n")
    with pytest.raises(SetupError, match="given by a URL that begins with https://"):
        command()
    assert hub.seen == []


def test_the_checkpoint_is_fetched_or_replaced(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    assert not fetch_real(Console(stream), {**command.environ, "HF_ENDPOINT": "http://127.0.0.1:9"})
    output = stream.getvalue()
    reason = "hf:owner/plain/a.safetensors: could not be reached"
    assert f"The real checkpoint cannot be downloaded ({reason}" in output
    assert "To download it, check the connection to 127.0.0.1; " in output
    assert fetch_real(Console(stream), command.environ)
    assert fetch_real(Console(stream), {**command.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}), (
        "it is there"
    )


def test_a_terminal_shows_files_and_a_total(command: Command) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    assert fetch_models(Console(stream), command.environ, ["sd"]) == 0
    shown = stream.getvalue()
    assert "Downloading 2 files" in shown
    assert "2 of 2 files, 200 kB of" in shown
    for name in ("checkpoints/a.safetensors", "loras/b.safetensors"):
        assert f"\x1b[Kdownloaded  {command.root / name}\n" in shown


def test_an_unreached_file_can_be_placed_by_hand(command: Command) -> None:
    command.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert command("gated") == 1
    assert "No answer from 127.0.0.1: check the connection to 127.0.0.1" in command.output
    assert "To place a file by hand" in command.output
    url = f"{HUB}/owner/plain/resolve/main/a.safetensors"
    assert f"  {url}\n    -> {command.root}/checkpoints/a.safetensors" in command.output


def bare_clone(folder: Path) -> None:
    """Copy the packages that the command uses, as a clone has them, without an installation."""
    for name in ("comfy_common", "comfy_local", "comfy_setup"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(paths.REPO / name, folder / name, ignore=ignored)
    (folder / "models.txt").write_text(TEXT)


def test_a_bare_clone_downloads_without_installing(hub: HubServer, tmp_path: Path) -> None:
    clone, volume = tmp_path / "clone", tmp_path / "volume"
    clone.mkdir()
    bare_clone(clone)
    environ = {
        "HF_ENDPOINT": hub.url,
        "MODELS_DIR": str(volume / "models"),
        "PATH": "/usr/bin:/bin",
    }
    python = Path(sys.base_prefix) / "bin" / "python3"

    def models_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        # -S leaves out installed packages: only the standard library is there.
        return subprocess.run(
            [python, "-S", "-m", "comfy_setup", "models", *arguments],
            cwd=clone, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    finished = models_command("--only", "sd")
    assert finished.returncode == 0, finished.stderr
    assert "2 of 2 files downloaded." in finished.stderr
    assert (volume / "models/checkpoints/a.safetensors").read_bytes() == DATA
    assert not (clone / ".venv").exists()
    assert models_command("--only", "sd").stderr == "All files are present.\n"
    assert models_command("--check", "--only", "sd").returncode == 0
    everything = models_command()
    assert everything.returncode == 1
    assert "add --yes to download everything" in everything.stderr


def test_downloading_everything_needs_a_yes(command: Command) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = io.StringIO()
    with pytest.raises(
        SetupError, match=r"All of models.txt: 4 files are missing, about 0 kB, and 4"
    ):
        confirm_all(Console(stream), command.environ, io.StringIO("y\n"))
    for answer, expected in (("y\n", True), ("yes\n", True), ("\n", False), ("no\n", False)):
        assert confirm_all(Console(stream), command.environ, Terminal(answer)) is expected
    assert "Download everything?" in stream.getvalue()


def test_the_total_counts_each_file_once(command: Command) -> None:
    text = f"""
[a] size:9GB
checkpoints/a.safetensors  {HUB}/o/p/resolve/main/a.safetensors  size:2GB
vae/c.safetensors          {HUB}/o/p/resolve/main/c.safetensors
[b]
checkpoints/a.safetensors  {HUB}/o/p/resolve/main/a.safetensors  size:2GB
loras/d.safetensors        {HUB}/o/p/resolve/main/d.safetensors  size:500MB
[c]
loras/e.safetensors        {HUB}/o/p/resolve/main/e.safetensors
"""
    models.MODELS_TXT.write_text(text)
    with pytest.raises(SetupError, match=r"4 files are missing, about 9\.5 GB, and 1 of them do"):
        confirm_all(Console(io.StringIO()), command.environ, io.StringIO())
    for name in ("checkpoints/a", "vae/c", "loras/d", "loras/e"):
        path = command.root / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DATA)
    assert confirm_all(Console(io.StringIO()), command.environ, io.StringIO())
