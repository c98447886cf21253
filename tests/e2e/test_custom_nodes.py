"""Custom nodes installed for real: from a Git repository on the disk and from a server that speaks the registry's
protocol, into an environment of their own, imported by the real ComfyUI.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_common.console import Console
from comfy_common.errors import SetupError
from comfy_setup import cli, node_packs, packages
from comfy_setup.child import Runner
from comfy_worker.__main__ import main as worker
from tests.core_nodes import OBJECT_INFO
from tests.pack_registry import Registry, registry
from tests.pack_workflows import WORKFLOWS

__all__ = ["registry"]

pytestmark = pytest.mark.e2e

GOOD = "NODE_CLASS_MAPPINGS = {}\n"
NOTES = """\
import os
from pathlib import Path

Path("notes.txt").write_text("\\n".join(os.environ[name] for name in ("PIP_CONSTRAINT", "UV_CONSTRAINT")))
"""


class Machine:
    """A machine that is ready but for custom nodes."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder = folder
        self.environ = {**os.environ, "COMFY_REGISTRY_URL": registry.url}

    def install(self, *lines: str) -> str:
        """Write custom_nodes.txt and install; gives what was said."""
        output = io.StringIO()
        node_packs.LIST.write_text("# packs\n" + "".join(f"{line}\n" for line in lines))
        with (self.folder / "lock").open("a+b") as lock:
            node_packs.install_packs(
                Console(output), Runner(lock, self.folder / "install.log", self.environ)
            )
        return output.getvalue()

    def packs(self) -> list[str]:
        return sorted(path.name for path in paths.NODE_PACKS.glob("*"))

    def holds(self, package: str) -> bool:
        return any(line.startswith(f"{package}==") for line in packages.installed())


@pytest.fixture
def machine(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One whose environment sees the packages of this one, and says that it was made of torch alone."""
    venv = tmp_path / ".venv"
    for module, name, path in (
        (paths, "VENV", venv),
        (paths, "VENV_PYTHON", venv / "bin" / "python"),
        (paths, "CACHE", tmp_path),
        (paths, "NODE_PACKS", tmp_path / "custom_nodes"),
        (packages, "MARKER", venv / "comfy_setup.json"),
        (packages, "INSTALLED", venv / "installed.txt"),
        (node_packs, "MARKER", venv / "node_packs.json"),
        (node_packs, "LIST", tmp_path / "custom_nodes.txt"),
    ):
        monkeypatch.setattr(module, name, path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    [site_packages] = venv.glob(packages.SITE_PACKAGES)
    (site_packages / "these.pth").write_text(sysconfig.get_path("purelib"))
    torch = site_packages / "torch-2.10.0.dist-info"
    torch.mkdir()
    (torch / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.10.0\n")
    packages.INSTALLED.write_text("torch==2.10.0\n")
    packages.MARKER.write_text("{}")
    return Machine(tmp_path, registry)


def repository(folder: Path, source: str = "") -> str:
    """Make a Git repository with a pack in it; gives its line.

    A broken commit follows the pack, unless its source is given.
    """
    folder.mkdir()
    (folder / "__init__.py").write_text(source or GOOD)
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "1"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if source:
        return f"file://{folder}@{commit}"
    (folder / "__init__.py").write_text("raise ValueError('not the commit that was asked for')\n")
    subprocess.run([*git, "commit", "-qam", "2"], check=True)
    return f"file://{folder}@{commit}"


def test_packs_are_installed_imported_and_kept(
    machine: Machine, registry: Registry, tmp_path: Path
) -> None:
    files = {
        "__init__.py": f"import tomli_w\n{GOOD}",
        "requirements.txt": "tomli-w>=1\ntorch\n",
        "install.py": NOTES,
    }
    lines = [registry.publish("good", "1.2.0", files), repository(tmp_path / "from-git")]
    broken = registry.publish("broken", "0.1.0", {"__init__.py": "import no_such_package\n"})
    own = paths.NODE_PACKS / "own"
    own.mkdir(parents=True)

    with pytest.raises(
        SetupError, match=r"cannot load the custom nodes broken: .*'no_such_package'\. Full output"
    ):
        machine.install(*lines, broken)
    assert machine.packs() == ["broken", "from-git", "good", "own"]

    request_count = len(registry.seen)
    assert "can import the custom nodes" in machine.install(*lines)
    assert machine.packs() == ["from-git", "good", "own"]
    assert len(registry.seen) == request_count
    assert machine.holds("tomli_w")
    assert machine.holds("torch")
    assert not (paths.NODE_PACKS / "from-git" / ".git").exists()
    assert (paths.NODE_PACKS / "good" / "notes.txt").read_text().split() == [
        str(packages.INSTALLED)
    ] * 2

    assert machine.install(*lines) == ""
    assert "Removing the packages" in machine.install(lines[0])
    assert machine.packs() == ["good", "own"]
    assert machine.holds("tomli_w")
    machine.install()
    assert machine.packs() == ["own"]
    assert not machine.holds("tomli_w")
    assert machine.holds("torch")
    assert machine.install() == ""


PASSING = """\
class Passing:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"image": ("IMAGE",)}})
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    def run(self, image):
        return (image,)


"""


def test_locked_packs_are_installed_and_check_passes(
    machine: Machine,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    classes = ("ImageResizeKJv2", "BlendPlus")
    sources = [f'{PASSING}NODE_CLASS_MAPPINGS = {{"{name}": Passing}}\n' for name in classes]
    registry.publish("comfyui-kjnodes", "1.1.9", {"__init__.py": sources[0]})
    (tmp_path / "github" / "someone").mkdir(parents=True)
    repository(tmp_path / "github" / "someone" / "blend-nodes", sources[1])
    redirect = {
        "COMFY_REGISTRY_URL": registry.url,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/github/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
    }
    for name, value in redirect.items():
        monkeypatch.setenv(name, value)
    machine.environ |= redirect
    files = tmp_path / "workflows"
    files.mkdir()
    for name in ("resize", "blend"):
        (files / f"{name}.json").write_text(json.dumps(WORKFLOWS[name]), encoding="utf-8")
    info = tmp_path / "object_info.json"
    info.write_text(json.dumps(OBJECT_INFO), encoding="utf-8")
    lock = ["check", str(files), "--object-info", str(info), "--lock"]
    assert cli.main(lock) == 0, capsys.readouterr().err
    machine.install(*node_packs.LIST.read_text().split())
    assert machine.packs() == ["blend-nodes", "comfyui-kjnodes"]
    assert worker(["check", str(files), "--fresh"]) == 0, capsys.readouterr().out


OLD_ASKS = (
    r"old requires torch<2\.10, and the worker needs torch 2\.10\.0.*\. Remove such a pack.*"
    r"no packages that fit together: .* \(Because .*torch==2\.10\.0.*\)"
)


def test_a_pack_that_wants_another_torch_is_refused(machine: Machine, registry: Registry) -> None:
    line = registry.publish(
        "old", "1.0.0", {"__init__.py": GOOD, "requirements.txt": "torch<2.10\n"}
    )
    with pytest.raises(SetupError, match=OLD_ASKS):
        machine.install(line)
    assert machine.holds("torch")


def test_a_failing_or_torch_removing_installer_is_named(
    machine: Machine, registry: Registry
) -> None:
    failing = registry.publish(
        "failing", "1.0.0", {"__init__.py": GOOD, "install.py": "raise SystemExit('no GPU')"}
    )
    with pytest.raises(
        SetupError, match=r"installer of the custom nodes failing failed: no GPU\. Full output"
    ):
        machine.install(failing)
    taking = f"import shutil\nshutil.rmtree({str(next(paths.VENV.glob('lib/*/*/torch-*')))!r})\n"
    line = registry.publish("taking", "1.0.0", {"__init__.py": GOOD, "install.py": taking})
    with pytest.raises(
        SetupError, match=r"nodes taking removed or replaced torch==2\.10\.0, which the"
    ):
        machine.install(line)
    assert not packages.MARKER.exists()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({}, "the registry has no pack@1.0.0"),
        ({"/nodes/pack/install?version=1.0.0": (500, b"")}, "the registry answers 500"),
        ({"/nodes/pack/install?version=1.0.0": (200, b"<html>")}, "is not a node pack"),
        ({"/nodes/pack/install?version=1.0.0": (200, b"[]")}, "is not a node pack"),
        (
            {"/nodes/pack/install?version=1.0.0": (200, b'{"version": "1.0.0"}')},
            "is not a node pack",
        ),
        (
            {
                "/nodes/pack/install?version=1.0.0": (
                    200,
                    b'{"downloadUrl": "file:///etc/hostname"}',
                )
            },
            "is not a node pack",
        ),
        (
            {
                "/nodes/pack/install?version=1.0.0": (
                    200,
                    b'{"downloadUrl": "", "status": "NodeVersionStatusBanned"}',
                )
            },
            r"has withdrawn pack@1.0.0 \(NodeVersionStatusBanned\)",
        ),
        ({"/storage/pack.zip": (404, b"")}, "the registry has no pack@1.0.0"),
        ({"/storage/pack.zip": (200, b"PK\3\4 cut")}, "is not a node pack"),
    ],
)
def test_a_registry_without_the_pack_is_reported(
    machine: Machine, registry: Registry, answers: dict[str, tuple[int, bytes]], words: str
) -> None:
    if "/storage/pack.zip" in answers:
        registry.publish("pack", "1.0.0", {"__init__.py": GOOD})
    registry.answers |= answers
    with pytest.raises(SetupError, match=words) as caught:
        machine.install("pack@1.0.0")
    assert "\n" not in str(caught.value)
    assert machine.packs() == []


def test_an_unreachable_registry_is_reported_in_one_line(
    machine: Machine, registry: Registry
) -> None:
    registry.publish("pack", "1.0.0", {"__init__.py": GOOD})
    registry.missing = 10
    with pytest.raises(SetupError, match=r"pack@1\.0\.0 cannot be downloaded: IncompleteRead"):
        machine.install("pack@1.0.0")
    machine.environ["COMFY_REGISTRY_URL"] = "http://127.0.0.1:9"
    with pytest.raises(SetupError, match=r"pack@1\.0\.0 cannot be downloaded: no network"):
        machine.install("pack@1.0.0")


def test_git_says_what_it_cannot_fetch(machine: Machine, tmp_path: Path) -> None:
    url = repository(tmp_path / "from-git").rpartition("@")[0]
    with pytest.raises(SetupError, match=r"Downloading the custom nodes .* failed: fatal: "):
        machine.install(f"{url}@{'0' * 40}")
    assert machine.packs() == []
    machine.environ["PATH"] = ""
    with pytest.raises(SetupError, match="git is missing: install it"):
        machine.install(f"{url}@{'0' * 40}")


def test_a_folder_of_someone_else_is_not_touched(machine: Machine, registry: Registry) -> None:
    line = registry.publish("pack", "1.0.0", {"__init__.py": GOOD})
    (paths.NODE_PACKS / "pack").mkdir(parents=True)
    with pytest.raises(SetupError, match="exists but this command did not create it: move it away"):
        machine.install(line)
    assert list((paths.NODE_PACKS / "pack").iterdir()) == []
