"""Custom nodes: the packs that custom_nodes.txt names, put beside ComfyUI and into the worker's own environment.

Owns `custom_nodes/`, but for packs that someone else put there, and the stamp that says for which packs the
environment was made ready.  A pack may add packages; it may not replace one that the environment was made of.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

from comfy_common import paths
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_common.import_failures import ImportFailures
from comfy_common.pinned_http import PinnedClient, RequestRefused, UnknownHost
from comfy_setup import comfyui, packages
from comfy_setup.child import ProgramFailed, Runner, explain
from comfy_setup.marker import read_stamp, write_stamp

LIST = paths.REPO / "custom_nodes.txt"
STAMP = paths.VENV / "node_packs.json"
STAMP_NAME = ".comfy_setup.json"
REGISTRY = "https://api.comfy.org"
TIMEOUT_S = 60.0
# What the registry says of a version that it has not taken back.
GOOD_STATUS = ("NodeVersionStatusActive", "NodeVersionStatusPending")


@dataclass(frozen=True)
class Pack:
    """A line of custom_nodes.txt.

    Args:
        name: its folder.
        source: its name in the registry, or the URL of a Git repository.
        version: as the registry numbers it, or all 40 digits of a commit.
    """

    name: str
    source: str
    version: str

    @property
    def line(self) -> str:
        """The line that it stands for."""
        return f"{self.source}@{self.version}"

    @property
    def folder(self) -> Path:
        """Where it is put."""
        return paths.NODE_PACKS / self.name


def parse_packs(text: str) -> list[Pack]:
    """Read custom_nodes.txt.

    Args:
        text: lines `name@version` or `URL@commit`, and `#` comments.

    Returns:
        Its packs in order.

    Raises:
        SetupError: a line is none of these, or two packs have one name.
    """
    packs: dict[str, Pack] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        source, _, version = line.rpartition("@")
        git = "://" in source
        name = source.rstrip("/").rpartition("/")[2].removesuffix(".git")
        if not (
            re.fullmatch(r"[\w-][\w.-]*", name)
            and (" " not in source if git else source == name)
            and re.fullmatch(r"[0-9a-f]{40}" if git else r"\d[\w.+-]*", version)
        ):
            raise SetupError(
                f"custom_nodes.txt, line {number}: write `name@version` for a pack of the registry, or "
                "`URL@commit` with all 40 digits of the commit"
            )
        if name in packs:
            raise SetupError(f"custom_nodes.txt, line {number}: {name} stands there twice")
        packs[name] = Pack(name, source, version)
    return list(packs.values())


def install_packs(console: Console, runner: Runner) -> None:
    """Bring the packs that custom_nodes.txt names into place, and take away those that it no longer names.

    Args:
        console: where it is told.
        runner: runs git, uv, the packs' own install.py, and ComfyUI for a look at whether it can import them; its
            environment may hold COMFYUI_DIR, and COMFY_REGISTRY_URL for another registry.

    Raises:
        SetupError: one line for the user.
    """
    packs = parse_packs(LIST.read_text(encoding="utf-8")) if LIST.is_file() else []
    for stamp in paths.NODE_PACKS.glob(f"*/{STAMP_NAME}"):
        if read_stamp(stamp).get("line") not in {pack.line for pack in packs}:
            shutil.rmtree(stamp.parent)
    missing = [pack for pack in packs if not (pack.folder / STAMP_NAME).is_file()]
    want = {"packs": " ".join(pack.line for pack in packs), "comfyui": comfyui.described(runner.environ)}
    if not packs or (not missing and read_stamp(STAMP) == want):
        return
    STAMP.unlink(missing_ok=True)
    for pack in missing:
        _fetch(console, runner, pack)
    _install_requirements(console, runner, packs)
    _check_imports(console, runner, packs)
    write_stamp(STAMP, want)


def _fetch(console: Console, runner: Runner, pack: Pack) -> None:
    """Put a pack into its folder, whole or not at all."""
    if pack.folder.exists():
        raise SetupError(f"{pack.folder} is there but was not made by this command: move it away")
    with (
        console.step(f"Fetching the custom nodes {pack.line}") as step,
        tempfile.TemporaryDirectory(dir=paths.CACHE) as part,
    ):
        made = Path(part) / pack.name
        if "://" in pack.source:
            _from_git(runner, step, pack, made)
        else:
            _from_registry(pack, runner.environ, made)
        write_stamp(made / STAMP_NAME, {"line": pack.line})
        paths.NODE_PACKS.mkdir(exist_ok=True)
        made.rename(pack.folder)


def _from_git(runner: Runner, step: Step, pack: Pack, made: Path) -> None:
    if not shutil.which("git", path=runner.environ.get("PATH")):
        raise SetupError("git is missing: install it (Debian and Ubuntu: `apt install git`) and call again")
    made.mkdir()
    for command in (
        ["init", "--quiet"],
        ["fetch", "--quiet", "--depth", "1", pack.source, pack.version],
        ["-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD"],
        ["submodule", "update", "--quiet", "--init", "--recursive", "--depth", "1"],
    ):
        runner.run(step, ["git", "-C", made, *command], settings={"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"})
    shutil.rmtree(made / ".git")


def _from_registry(pack: Pack, environ: Mapping[str, str], made: Path) -> None:
    registry = environ.get("COMFY_REGISTRY_URL") or REGISTRY
    url = f"{registry}/nodes/{quote(pack.source)}/install?version={quote(pack.version)}"
    try:
        said = json.loads(_read(url))
        link, status = said["downloadUrl"], said.get("status", GOOD_STATUS[0])
        if status not in GOOD_STATUS:
            raise SetupError(
                f"the registry has taken {pack.line} back ({status}): choose another version, or name its Git "
                "repository and commit if you have looked at it"
            )
        with zipfile.ZipFile(io.BytesIO(_read(link))) as archive:
            archive.extractall(made)
    except _Answered as answer:
        what = f"has no {pack.line}" if answer.status == 404 else f"answers {answer.status}"
        raise SetupError(f"the registry {what} ({answer.url})") from None
    except UnknownHost as error:
        why = explain(f"Could not resolve host: {error.host}", environ)
        raise SetupError(f"{pack.line} cannot be fetched: {why} ({url})") from None
    except (OSError, HTTPException) as error:
        why = explain(f"{type(error).__name__}: {error} ({url})", environ)
        raise SetupError(f"{pack.line} cannot be fetched: {why}") from error
    except (RequestRefused, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise SetupError(f"{pack.line} cannot be fetched: {url} answers what is no node pack") from error


class _Answered(Exception):
    """The registry answered with something else than what was asked for."""

    def __init__(self, status: int, url: str) -> None:
        super().__init__(status)
        self.status = status
        self.url = url


def _read(url: str) -> bytes:
    client = PinnedClient(allow_private=True, use_proxies=True, silence_s=lambda: TIMEOUT_S)
    with client.open(url) as answer:
        if answer.response.status != 200:
            raise _Answered(answer.response.status, answer.target.url)
        return answer.response.read()


def _install_requirements(console: Console, runner: Runner, packs: list[Pack]) -> None:
    """Install what the packs ask for, all at once so that they fit together, then run their own installers."""
    lists = [path for pack in packs if (path := pack.folder / "requirements.txt").is_file()]
    if lists:
        with console.step("Installing what the custom nodes ask for") as step:
            asked = [part for path in lists for part in ("-r", path)]
            try:
                packages.uv_install(runner, step, "--compile-bytecode", *asked, "-c", packages.INSTALLED)
            except ProgramFailed as error:
                raise _conflict(packs, error) from None
    settings = {
        # Both are read by whatever pip or uv an installer calls.
        "PIP_CONSTRAINT": str(packages.INSTALLED),
        "UV_CONSTRAINT": str(packages.INSTALLED),
        "PATH": os.pathsep.join([str(paths.VENV / "bin"), runner.environ.get("PATH", os.defpath)]),
        "COMFYUI_PATH": str(paths.comfyui_dir(runner.environ)),
    }
    for pack in packs:
        if (pack.folder / "install.py").is_file():
            with console.step(f"Running the installer of the custom nodes {pack.name}") as step:
                runner.run(step, [paths.VENV_PYTHON, "install.py"], settings=settings, folder=pack.folder)
        _check_installed(pack)


def _check_installed(pack: Pack) -> None:
    """Make sure that the installer of a pack left the worker's packages as they were."""
    was = set(packages.INSTALLED.read_text(encoding="utf-8").split())
    if gone := sorted(was - set(packages.installed())):
        packages.STAMP.unlink()  # so that the next call makes the environment anew
        raise SetupError(
            f"the installer of the custom nodes {pack.name} removed or replaced {', '.join(gone)}, which the "
            "worker needs as it was: leave the pack out, or use another version of it"
        )


def _conflict(packs: list[Pack], error: ProgramFailed) -> SetupError:
    """The same error, with the packs and their requirements that it is about, where it names them."""
    mentioned = {_normal(word) for word in re.findall(r"[A-Za-z0-9][\w.-]*", error.output)}
    # uv writes a requirement without a blank: numpy>=2.
    held = dict(line.split("==", 1) for line in packages.INSTALLED.read_text(encoding="utf-8").split())
    ours = {_normal(name): version for name, version in held.items()}
    wishes = []
    for pack in packs:
        for requirement in _requirements(pack):
            name = re.match(r"[A-Za-z0-9][\w.-]*", requirement)
            if name is None or _normal(name[0]) not in mentioned:
                continue
            wish = f"{pack.name} asks for {requirement}"
            if version := ours.get(_normal(name[0])):
                wish += f", and the worker needs {name[0]} {version}"
            wishes.append(wish)
    if not wishes:
        return error
    return SetupError(
        f"the custom nodes do not fit together or to the worker: {'; '.join(wishes)}. Leave such a pack out of "
        f"custom_nodes.txt, or use another version of it. {error}"
    )


def _normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower().strip("-")


def _requirements(pack: Pack) -> list[str]:
    """The lines of a pack's requirements.txt that name a package."""
    file = pack.folder / "requirements.txt"
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    bare = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    return [line for line in bare if line and not line.startswith("-")]


def _check_imports(console: Console, runner: Runner, packs: list[Pack]) -> None:
    """Let ComfyUI itself import the packs, on the processor: where an image is built there is no GPU."""
    with (
        console.step("Looking whether ComfyUI can import the custom nodes") as step,
        tempfile.TemporaryDirectory(dir=paths.CACHE) as scratch,
    ):
        config = Path(scratch) / "paths.yaml"
        config.write_text(json.dumps({"packs": {"custom_nodes": str(paths.NODE_PACKS)}}), encoding="utf-8")
        command: list[str | Path] = [
            paths.VENV_PYTHON,
            "main.py",
            "--quick-test-for-ci",
            "--cpu",
            "--disable-api-nodes",
        ]
        for option in ("--user-directory", "--input-directory", "--output-directory", "--temp-directory"):
            command += [option, scratch]
        command += ["--database-url", "sqlite:///:memory:", "--extra-model-paths-config", config]
        failures = ImportFailures()
        runner.run(step, command, failures.hear, folder=paths.comfyui_dir(runner.environ))
    for pack in packs:
        if reason := failures.failed().get(pack.folder):
            raise SetupError(
                f"ComfyUI does not load the custom nodes {pack.name}: {reason}. Full output: {runner.log}"
            )
