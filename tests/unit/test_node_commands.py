"""`nodes add | remove | list | map`, against a registry and Git repositories on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from comfy_common import node_map, paths
from comfy_setup import cli, node_packs, packages
from comfy_setup.marker import read_marker, write_marker
from comfy_setup.registry import version_key
from tests.pack_registry import Registry, registry

__all__ = ["registry"]

BANNED = "NodeVersionStatusBanned"


@pytest.fixture
def listed(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A custom_nodes.txt with a comment, and a machine whose registry is the local one."""
    file = tmp_path / "custom_nodes.txt"
    file.write_text("# packs\n")
    monkeypatch.setattr(node_packs, "LIST", file)
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(paths, "NODE_PACKS", tmp_path / "custom_nodes")
    monkeypatch.setattr(node_map, "NODE_MAP", tmp_path / "cache" / "node_map.json")
    monkeypatch.setattr(packages, "INSTALLED", tmp_path / "installed.txt")
    monkeypatch.setenv("COMFY_REGISTRY_URL", registry.url)
    monkeypatch.setenv("COMFY_NODE_MAP_URL", f"{registry.url}/manager")
    monkeypatch.setenv("VOLUME_DIR", str(tmp_path / "volume"))
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path / "ComfyUI"))
    return file


def repository(folder: Path) -> tuple[str, list[str]]:
    """Make a Git repository with a tag on its first commit; gives its URL and commits."""
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    commits = []
    for text in ("1", "2"):
        (folder / "__init__.py").write_text(text)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", text], check=True)
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        commits.append(found.stdout.strip())
    subprocess.run([*git, "tag", "-a", "v1.0", "-m", "1", commits[0]], check=True)
    return f"file://{folder}", commits


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails; gives its one line."""
    assert cli.main(["nodes", *arguments]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_newest_version_is_pinned(listed: Path, registry: Registry) -> None:
    registry.publish("pack", "1.0.0", {})
    registry.publish("pack", "1.10.0", {})
    assert cli.main(["nodes", "add", "pack"]) == 0
    assert listed.read_text() == "# packs\npack@1.10.0\n"


def test_adding_again_replaces_the_version(
    listed: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.publish("pack", "1.0.0", {})
    registry.publish("pack", "1.1.0", {})
    listed.write_text("pack@1.0.0  # why\nother@2.0")
    assert cli.main(["nodes", "add", "pack"]) == 0
    assert listed.read_text() == "pack@1.1.0  # why\nother@2.0\n"
    assert "pack@1.1.0 replaces pack@1.0.0 in custom_nodes.txt" in capsys.readouterr().err
    assert cli.main(["nodes", "add", "pack@1.0.0"]) == 0
    assert "pack@1.0.0  # why\n" in listed.read_text()


def test_a_withdrawn_version_is_never_chosen(
    listed: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.publish("pack", "1.0.0", {})
    registry.publish("pack", "1.1.0", {}, status=BANNED)
    assert cli.main(["nodes", "add", "pack"]) == 0
    assert "pack@1.0.0" in listed.read_text()
    capsys.readouterr()
    assert f"has withdrawn pack@1.1.0 ({BANNED}): it has 1.0.0" in fails(
        capsys, "add", "pack@1.1.0"
    )
    assert "has no pack@9.0.0: it has 1.0.0" in fails(capsys, "add", "pack@9.0.0")
    registry.publish("bad", "1.0.0", {}, status=BANNED)
    assert "has no version of bad" in fails(capsys, "add", "bad")


def test_git_repositories_are_pinned_to_commits(listed: Path, tmp_path: Path) -> None:
    url, (first, second) = repository(tmp_path / "My-Nodes")
    for text, commit in (
        (url, second),
        (f"{url}@main", second),
        (f"{url}@v1.0", first),
        (f"{url}@{first[:10]}", first),
        (f"{url}@{second}", second),
    ):
        assert cli.main(["nodes", "add", text]) == 0
        assert listed.read_text() == f"# packs\n{url}@{commit}\n"


def test_repositories_that_cannot_be_pinned(
    listed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, _ = repository(tmp_path / "nodes")
    assert cli.main(["nodes", "add", f"{url}@v9"]) == 1
    assert "has no tag, branch or commit v9" in capsys.readouterr().err
    assert cli.main(["nodes", "add", f"file://{tmp_path}/nowhere"]) == 1
    assert "there is no Git repository at that address" in capsys.readouterr().err
    assert "would hold the password" in fails(capsys, "add", "https://me:secret@example.org/o/r")
    monkeypatch.setenv("PATH", "")
    assert "git is missing" in fails(capsys, "add", url)
    assert listed.read_text() == "# packs\n"


def test_a_mistyped_name_gets_the_nearest(
    listed: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.answer("/nodes/search", {"nodes": [{"id": "comfyui-kjnodes"}, {"id": 3}, "x"]})
    assert "has no node pack kjnode: did you mean comfyui-kjnodes?" in fails(
        capsys, "add", "kjnode"
    )
    registry.answer("/nodes/search", {})
    assert "search https://registry.comfy.org" in fails(capsys, "add", "kjnode")
    error = fails(capsys, "add", "owner/name")
    assert "neither the name of a node pack nor a URL" in error
    assert error.endswith("a Git repository on this disk is written file:///path")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, b""), "the registry answers 500"),
        ((200, b"<html>"), "is not JSON: is it a registry?"),
        ((200, b"[]"), "has another form"),
    ],
)
def test_an_odd_registry_is_reported(
    listed: Path,
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
    answer: tuple[int, bytes],
    words: str,
) -> None:
    registry.answers["/nodes/pack"] = answer
    assert words in fails(capsys, "add", "pack")


def test_an_unreachable_registry_names_host_and_mirror(
    listed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFY_REGISTRY_URL", "https://api.comfy.org.invalid")
    assert "check the connection to api.comfy.org.invalid" in fails(capsys, "add", "pack")
    monkeypatch.setenv("COMFY_REGISTRY_URL", "http://127.0.0.1:9")
    assert "no network, or the server does not answer" in fails(capsys, "add", "pack")
    monkeypatch.setenv("COMFY_REGISTRY_URL", "ftp://example.org")
    assert "cannot be used (UnsupportedScheme)" in fails(capsys, "add", "pack")


def test_a_pack_that_the_lock_forbids_is_named(
    listed: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.publish("old", "1.0.0", {}, dependencies=["pytest<2", "no-such-package"])
    registry.publish("new", "1.0.0", {}, dependencies=["no-such-package", "pytest>2"])
    packages.INSTALLED.write_text("pytest==9.0.0\n")
    assert cli.main(["nodes", "add", "new"]) == 0
    capsys.readouterr()
    line = fails(capsys, "add", "old")
    assert "old@1.0.0 requires pytest<2, and the worker needs pytest " in line
    assert line.endswith("name another version of it (NAME@VERSION), or do without it")
    assert "old" not in listed.read_text()


def test_removing_a_pack_keeps_the_other_lines(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed.write_text("# packs\none@1.0.0\n# two\nTwo@2.0.0  # because\n")
    assert "has no node pack twoo: did you mean Two?" in fails(capsys, "remove", "twoo")
    assert "it has one, Two" in fails(capsys, "remove", "elsewhere")
    assert cli.main(["nodes", "remove", "two"]) == 0
    assert listed.read_text() == "# packs\none@1.0.0\n# two\n"


def test_an_installed_pack_is_removed_at_once(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMFYUI_DIR")
    monkeypatch.setattr(paths, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(packages, "ready", lambda: True)
    monkeypatch.setattr(node_packs, "MARKER", tmp_path / "marker.json")
    packages.INSTALLED.write_text("")
    write_marker(node_packs.MARKER, {"packs": "one@1.0.0"})
    listed.write_text("one@1.0.0\n")
    folder = paths.NODE_PACKS / "one"
    folder.mkdir(parents=True)
    write_marker(folder / node_packs.MARKER_NAME, {"line": "one@1.0.0"})
    assert cli.main(["nodes", "remove", "one"]) == 0
    assert not folder.exists()
    assert read_marker(node_packs.MARKER)["packs"] == ""


def test_the_list_shows_pinned_and_other_packs(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed.write_text("one@1.0.0\ntwo@2.0.0\n")
    (paths.NODE_PACKS / "one").mkdir(parents=True)
    (paths.NODE_PACKS / "one" / node_packs.MARKER_NAME).write_text("{}")
    (tmp_path / "volume" / "custom_nodes" / "three").mkdir(parents=True)
    (tmp_path / "volume" / "custom_nodes" / "__pycache__").mkdir()
    assert cli.main(["nodes", "list"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    three = str(tmp_path / "volume" / "custom_nodes" / "three")
    assert shown == [["installed", "one@1.0.0"], ["missing", "two@2.0.0"], ["unpinned", three]]


def test_an_empty_list_is_explained(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed.write_text("")
    assert cli.main(["nodes", "list"]) == 0
    out, err = capsys.readouterr()
    assert (out, err.startswith("There are no node packs.")) == ("", True)


def test_the_map_is_downloaded_once_complete(
    listed: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["nodes", "map"]) == 1
    assert "answers 404; set COMFY_NODE_MAP_URL" in capsys.readouterr().err
    registry.answer("/manager/extension-node-map.json", {"https://x/o/p": [["Mine"], {}]})
    registry.answers["/manager/custom-node-list.json"] = (200, b"<html>")
    assert cli.main(["nodes", "map"]) == 1
    assert "is not JSON" in capsys.readouterr().err
    registry.answer("/manager/custom-node-list.json", {})
    assert cli.main(["nodes", "map"]) == 1
    assert "has another form" in capsys.readouterr().err
    assert node_map.installed_map().packs_of("Mine") == []
    packs = {"custom_nodes": [{"id": "mine", "reference": "https://x/o/p"}]}
    registry.answer("/manager/custom-node-list.json", packs)
    assert cli.main(["nodes", "map"]) == 0
    assert node_map.installed_map().packs_of("Mine") == ["https://x/o/p"]


def test_versions_sort_by_their_numbers() -> None:
    versions = ["1.0.0", "1.10.0", "1.9.0", "1.10.0-rc1", "1.10.0-rc2"]
    assert sorted(versions, key=version_key, reverse=True) == [
        "1.10.0",
        "1.10.0-rc2",
        "1.10.0-rc1",
        "1.9.0",
        "1.0.0",
    ]
