"""Installs the node packs that custom_nodes.txt names, and their Python packages.

The packs are in `custom_nodes/`; packs that someone else put there stay untouched. A marker says
for which packs the environment was prepared. A pack may add Python packages, but may not replace
those of the worker.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from comfy_common import paths
from comfy_common.console import Console, Step
from comfy_common.errors import SetupError
from comfy_common.import_failures import ImportFailures
from comfy_common.requirements import Unmet
from comfy_setup import comfyui, packages
from comfy_setup.child import NO_REPOSITORY, ProgramFailed, Runner
from comfy_setup.git_source import GIT_IS_MISSING, has_git
from comfy_setup.marker import read_marker, write_marker
from comfy_setup.registry import GOOD_STATUS, HTTPProblem, Malformed, Registry, read_url

LIST = paths.REPO / "custom_nodes.txt"
MARKER = paths.VENV / "node_packs.json"
MARKER_NAME = ".comfy_setup.json"
# uv writes a requirement without a blank, as in numpy>=2.
PACKAGE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# The errors of an answer that is not a node pack.
MALFORMED = (
    Malformed,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Pack:
    """A line of custom_nodes.txt.

    Args:
        name: the name of its folder.
        source: its name in the registry, or the URL of a Git repository.
        version: its version in the registry, or all 40 digits of a commit.
    """

    name: str
    source: str
    version: str

    @property
    def line(self) -> str:
        """The pack as a line of custom_nodes.txt."""
        return f"{self.source}@{self.version}"

    @property
    def folder(self) -> Path:
        """The folder of the pack."""
        return paths.NODE_PACKS / self.name


def parse_packs(text: str) -> list[Pack]:
    """Read custom_nodes.txt.

    Args:
        text: lines `name@version` or `URL@commit`, and `#` comments.

    Returns:
        The packs in order.

    Raises:
        SetupError: a line has another form, or two packs have the same name.
    """
    packs: dict[str, Pack] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        pack = _parse_pack(line)
        if pack is None:
            raise SetupError(
                f"custom_nodes.txt, line {number}: write `name@version` for a pack of the "
                "registry, or `URL@commit` with all 40 digits of the commit"
            )
        if pack.name in packs:
            raise SetupError(f"custom_nodes.txt, line {number}: {pack.name} is listed twice")
        packs[pack.name] = pack
    return list(packs.values())


def _parse_pack(line: str) -> Pack | None:
    """Read a line of custom_nodes.txt; None if it has another form."""
    source, _, version = line.rpartition("@")
    name = source.rstrip("/").rpartition("/")[2].removesuffix(".git")
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        return None
    if "://" in source:
        is_valid = " " not in source and re.fullmatch(r"[0-9a-f]{40}", version)
    else:
        is_valid = source == name and re.fullmatch(r"\d[\w.+-]*", version)
    return Pack(name, source, version) if is_valid else None


def install_packs(console: Console, runner: Runner) -> None:
    """Install the packs that custom_nodes.txt names, and remove those that it no longer names.

    Args:
        console: shows the steps.
        runner: runs git, uv, the packs' own install.py, and ComfyUI to check that it can import the
            packs. Its environment may hold COMFYUI_DIR, and COMFY_REGISTRY_URL for another
            registry.

    Raises:
        SetupError: it failed; one line for the user.
    """
    packs = listed_packs()
    lines = [pack.line for pack in packs]
    for marker in paths.NODE_PACKS.glob(f"*/{MARKER_NAME}"):
        if read_marker(marker).get("line") not in lines:
            shutil.rmtree(marker.parent)
    missing = [pack for pack in packs if not (pack.folder / MARKER_NAME).is_file()]
    want = {"packs": " ".join(lines), "comfyui": comfyui.described(runner.environ)}
    prepared = read_marker(MARKER)
    if not missing and (prepared == want or not (packs or prepared)):
        return
    # An unfinished call leaves its packs in the marker, since it may have installed packages.
    touched = list(dict.fromkeys([*prepared.get("packs", "").split(), *lines]))
    write_marker(MARKER, {"packs": " ".join(touched), "unfinished": "yes"})
    if set(touched) != set(lines) and not paths.VENV.is_symlink():
        _remove_packages(console, runner)
    for pack in missing:
        _fetch(console, runner, pack)
    if packs:
        _install_requirements(console, runner, packs)
        _check_imports(console, runner, packs)
    write_marker(MARKER, want)


def listed_packs() -> list[Pack]:
    """Read custom_nodes.txt; a missing file names no packs.

    Raises:
        SetupError: a line has another form.
    """
    return parse_packs(LIST.read_text(encoding="utf-8")) if LIST.is_file() else []


def _remove_packages(console: Console, runner: Runner) -> None:
    """Remove the packages that node packs have added; those that remain are installed again.

    Nobody knows which package an installer of a pack has added for itself, so all of them go. uv
    keeps them in its cache.
    """
    before = {_normal(line.split("==")[0]) for line in packages.installed_before_packs()}
    names = [line.split("==")[0] for line in packages.installed()]
    added = [name for name in names if _normal(name) not in before]
    if added:
        with console.step("Removing the packages of custom nodes that are gone") as step:
            packages.uv_uninstall(runner, step, *added)


def _fetch(console: Console, runner: Runner, pack: Pack) -> None:
    """Download a pack. Its folder appears only when it is complete."""
    if pack.folder.exists():
        raise SetupError(f"{pack.folder} exists but this command did not create it: move it away")
    with (
        console.step(f"Downloading the custom nodes {pack.line}") as step,
        tempfile.TemporaryDirectory(dir=paths.CACHE) as part,
    ):
        made = Path(part) / pack.name
        if "://" in pack.source:
            try:
                _from_git(runner, step, pack, made)
            except ProgramFailed as error:
                raise _explained(error, pack) from None
        else:
            _from_registry(pack, runner.environ, made)
        write_marker(made / MARKER_NAME, {"line": pack.line})
        paths.NODE_PACKS.mkdir(exist_ok=True)
        made.rename(pack.folder)


def _explained(error: ProgramFailed, pack: Pack) -> SetupError:
    """The error of a download by Git, in words about node packs."""
    if NO_REPOSITORY not in str(error):
        return error
    hint = ", or it needs a login"
    if pack.source.startswith("file://"):
        hint = "; the build of an image reads no folder of your disk, see docs/custom-nodes.md"
    return SetupError(f"{pack.line}: {NO_REPOSITORY}{hint}")


def _from_git(runner: Runner, step: Step, pack: Pack, made: Path) -> None:
    if not has_git(runner.environ):
        raise SetupError(GIT_IS_MISSING)
    made.mkdir()
    settings = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for command in (
        ["init", "--quiet"],
        ["fetch", "--quiet", "--depth", "1", pack.source, pack.version],
        ["-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD"],
        ["submodule", "update", "--quiet", "--init", "--recursive", "--depth", "1"],
    ):
        runner.run(step, ["git", "-C", made, *command], settings=settings)
    shutil.rmtree(made / ".git")


def _from_registry(pack: Pack, environ: Mapping[str, str], made: Path) -> None:
    registry = Registry(environ).url
    url = f"{registry}/nodes/{quote(pack.source)}/install?version={quote(pack.version)}"
    subject = f"{pack.line} cannot be downloaded"
    try:
        version = json.loads(read_url(url, subject, environ))
        link, status = version["downloadUrl"], version.get("status", GOOD_STATUS[0])
        if status not in GOOD_STATUS:
            raise SetupError(
                f"the registry has withdrawn {pack.line} ({status}): choose another version, or "
                "name its Git repository and commit if you have reviewed it"
            )
        with zipfile.ZipFile(io.BytesIO(read_url(link, subject, environ))) as archive:
            archive.extractall(made)
    except HTTPProblem as error:
        problem = f"has no {pack.line}" if error.status == 404 else f"answers {error.status}"
        raise SetupError(f"the registry {problem} ({error.url})") from None
    except MALFORMED as error:
        raise SetupError(f"{subject}: the answer of {url} is not a node pack") from error


def _install_requirements(console: Console, runner: Runner, packs: list[Pack]) -> None:
    """Install the requirements of all packs in one step, and run the packs' installers."""
    arguments: list[str | Path] = []
    for pack in packs:
        path = pack.folder / "requirements.txt"
        if path.is_file():
            arguments += ["-r", path]
    if arguments:
        arguments += ["-c", packages.INSTALLED]
        with console.step("Installing the requirements of the custom nodes") as step:
            try:
                packages.uv_install(runner, step, "--compile-bytecode", *arguments)
            except ProgramFailed as error:
                raise _conflict(packs, error) from None
    settings = {
        # The pip or uv that an installer runs reads these two.
        "PIP_CONSTRAINT": str(packages.INSTALLED),
        "UV_CONSTRAINT": str(packages.INSTALLED),
        "PATH": os.pathsep.join([str(paths.VENV / "bin"), runner.environ.get("PATH", os.defpath)]),
        "COMFYUI_PATH": str(paths.comfyui_dir(runner.environ)),
    }
    for pack in packs:
        if (pack.folder / "install.py").is_file():
            with console.step(f"Running the installer of the custom nodes {pack.name}") as step:
                runner.run(
                    step, [paths.VENV_PYTHON, "install.py"], settings=settings, folder=pack.folder
                )
        _check_installed(pack)


def _check_installed(pack: Pack) -> None:
    """Make sure that the installer of a pack left the worker's packages as they were."""
    before = set(packages.installed_before_packs())
    if changed := sorted(before - set(packages.installed())):
        packages.MARKER.unlink()  # so that the next call creates the environment again
        raise SetupError(
            f"the installer of the custom nodes {pack.name} removed or replaced "
            f"{', '.join(changed)}, "
            "which the worker needs: remove the pack from custom_nodes.txt, or use another version"
        )


def _conflict(packs: list[Pack], error: ProgramFailed) -> SetupError:
    """The same error, with the packs and requirements that uv's output mentions."""
    mentioned = {_normal(word) for word in PACKAGE_NAME.findall(error.output)}
    of_worker: dict[str, str] = {}
    for line in packages.installed_before_packs():
        package, version = line.split("==", 1)
        of_worker[_normal(package)] = version
    conflicts = []
    for pack in packs:
        for requirement in _requirements(pack):
            name = PACKAGE_NAME.match(requirement)
            if name is None or _normal(name[0]) not in mentioned:
                continue
            conflict = f"{pack.name} requires {requirement}"
            if needed := of_worker.get(_normal(name[0])):
                conflict += f", and the worker needs {name[0]} {needed}"
            conflicts.append(conflict)
    if not conflicts:
        return error
    return SetupError(
        f"the custom nodes conflict with each other or with the worker: {'; '.join(conflicts)}. "
        f"Remove such a pack from custom_nodes.txt, or use another version of it. {error}"
    )


def _normal(name: str) -> str:
    """A package's name in the form in which indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower().strip("-")


def forbidden(unmet: Iterable[Unmet]) -> list[str]:
    """Say which requirements the worker's own packages contradict.

    Args:
        unmet: the requirements that the environment does not meet.

    Returns:
        Clauses such as "requires torch<2.10, and the worker needs torch 2.11.0".
    """
    of_worker = {_normal(line.split("==")[0]) for line in packages.installed_before_packs()}
    clauses = []
    for entry in unmet:
        name = PACKAGE_NAME.match(entry.requirement)
        if entry.installed and name is not None and _normal(name[0]) in of_worker:
            needed = f"the worker needs {name[0]} {entry.installed}"
            clauses.append(f"requires {entry.requirement}, and {needed}")
    return clauses


def pack_folders(environ: Mapping[str, str]) -> list[Path]:
    """List the node packs of this machine: of custom_nodes.txt, of ComfyUI and of the volume.

    Args:
        environ: may hold COMFYUI_DIR and VOLUME_DIR.
    """
    folders = [paths.comfyui_dir(environ) / "custom_nodes"]
    folders += paths.custom_node_folders(paths.volume_dir(environ))
    packs: dict[Path, None] = {}
    for folder in folders:
        if folder != paths.CUSTOM_NODES and folder.is_dir():
            packs |= dict.fromkeys(path for path in sorted(folder.iterdir()) if _is_pack(path))
    return list(packs)


def _is_pack(path: Path) -> bool:
    is_hidden = path.name.startswith((".", "__")) or path.name.endswith(".disabled")
    return path.is_dir() and not is_hidden


def _requirements(pack: Pack) -> list[str]:
    """The lines of a pack's requirements.txt that name a package."""
    file = pack.folder / "requirements.txt"
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    bare = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    return [line for line in bare if line and not line.startswith("-")]


def _check_imports(console: Console, runner: Runner, packs: list[Pack]) -> None:
    """Let ComfyUI import the packs, on the CPU, since an image is built without a GPU."""
    with (
        console.step("Checking that ComfyUI can import the custom nodes") as step,
        tempfile.TemporaryDirectory(dir=paths.CACHE) as scratch,
    ):
        config = Path(scratch) / "paths.yaml"
        folders = {"packs": {"custom_nodes": str(paths.NODE_PACKS)}}
        config.write_text(json.dumps(folders), encoding="utf-8")
        command: list[str | Path] = [
            paths.VENV_PYTHON,
            "main.py",
            "--quick-test-for-ci",
            "--cpu",
            "--disable-api-nodes",
        ]
        for folder in ("user", "input", "output", "temp"):
            command += [f"--{folder}-directory", scratch]
        command += ["--database-url", "sqlite:///:memory:", "--extra-model-paths-config", config]
        failures = ImportFailures()
        runner.run(step, command, failures.read_line, folder=paths.comfyui_dir(runner.environ))
    for pack in packs:
        if reason := failures.failed().get(pack.folder):
            raise SetupError(
                f"ComfyUI cannot load the custom nodes {pack.name}: {reason}. Full output: "
                f"{runner.log}"
            )
