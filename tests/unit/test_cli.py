"""The commands on workflow files: one, a folder, stdin; what they print, write and answer."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_worker.__main__ import main
from tests.editor_files import FILES, editor_file, node

MADE = json.loads(Path(__file__).with_name("editor_files.json").read_text(encoding="utf-8"))


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command with the declarations of the editor files; answers exit code, stdout and stderr."""
    info = tmp_path / "object_info.json"
    info.write_text(json.dumps(MADE["object_info"]), encoding="utf-8")

    def run(command: str, file: Path | str, *more: str) -> tuple[int, str, str]:
        code = main([command, str(file), "--object-info", str(info), *more])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files: one that is right, one that names a class that is not there, one that is none."""
    found = tmp_path / "files"
    found.mkdir()
    (found / "a.json").write_text(json.dumps(FILES["a subgraph twice"]), encoding="utf-8")
    strange = node(1, "FaceSwap", {}, "", [3], properties={"cnr_id": "comfyui-face"})
    (found / "b.json").write_text(json.dumps(editor_file(strange)), encoding="utf-8")
    (found / "c.json").write_text("{cut", encoding="utf-8")
    (found / "a.params.json").write_text("{}", encoding="utf-8")
    return found


def test_convert_prints_or_writes_the_graph(cli: Any, folder: Path, tmp_path: Path) -> None:
    code, out, _ = cli("convert", folder / "a.json")
    assert (code, list(json.loads(out))) == (0, ["1", "2:5", "2:6", "3:5", "3:6", "4"])
    written = tmp_path / "new" / "a.json"
    assert cli("convert", folder / "a.json", "--output", str(written)) == (0, "", "")
    assert json.loads(written.read_text(encoding="utf-8")) == json.loads(out)


def test_checking_a_folder_names_each_wrong_file(cli: Any, folder: Path, tmp_path: Path) -> None:
    code, out, err = cli("convert", folder, "--output", str(tmp_path / "new"))
    assert (code, out) == (1, "")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "b.json"]
    first, second = err.splitlines()
    assert first.endswith(
        "node 1 (FaceSwap): this ComfyUI has no FaceSwap; install the node pack comfyui-face"
    )
    assert "c.json: INVALID_WORKFLOW: it is neither JSON nor a picture" in second


def test_check_tells_what_is_wrong(cli: Any, folder: Path) -> None:
    code, out, _ = cli("check", folder, "--json")
    reports = {Path(name).name: report for name, report in json.loads(out).items()}
    assert code == 1
    assert reports["a.json"] == {"findings": [], "warnings": [], "nodes": [], "needs": []}
    assert [finding["type"] for finding in reports["b.json"]["findings"]] == ["unknown_class"]
    assert reports["c.json"]["error"].startswith("INVALID_WORKFLOW")
    code, out, _ = cli("check", folder / "a.json")
    assert (code, out) == (0, f"{folder / 'a.json'}: nothing is wrong\n")


def test_stdin_is_read(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(FILES["plain"]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
    code, out, _ = cli("inspect", "-", "--json")
    report = json.loads(out)["stdin"]
    assert code == 0
    assert report["parameters"]["steps"]["places"] == ["13.steps"]
    assert report["roles"]["samplers"] == ["13"]
    assert report["needs"] == [{"folder": "checkpoints", "file": "model.safetensors", "url": None}]


def test_inspect_is_a_table(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "plain.json"
    file.write_text(json.dumps(FILES["plain"]), encoding="utf-8")
    code, out, _ = cli("inspect", file)
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["steps", "20", "integer", "1..10000", "13.steps"] in rows
    assert ["outputs", "15"] in rows


def test_a_missing_file_starts_no_comfyui(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path / "nothing"))
    file = tmp_path / "none.json"
    assert main(["check", str(file)]) == 1
    assert capsys.readouterr().out == f"{file}: No such file or directory\n"


def test_inspect_says_that_no_model_is_installed(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "plain.json"
    file.write_text(json.dumps(FILES["plain"]), encoding="utf-8")
    info = json.loads((tmp_path / "object_info.json").read_text(encoding="utf-8"))
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = []
    (tmp_path / "object_info.json").write_text(json.dumps(info), encoding="utf-8")
    _, out, _ = cli("inspect", file)
    assert "none is installed" in next(
        line for line in out.splitlines() if line.startswith("checkpoint ")
    )


def test_a_request_is_a_workflow_too(cli: Any, tmp_path: Path) -> None:
    graph = {
        "1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}}
    }
    file = tmp_path / "request.json"
    for workflow in (graph, json.dumps(graph)):
        file.write_text(json.dumps({"input": {"workflow": workflow, "seed": 3}}), encoding="utf-8")
        code, out, _ = cli("check", file)
        assert (code, "images is linked to node '2', which is not there" in out) == (1, True)


def test_one_file_may_go_into_a_folder(cli: Any, folder: Path, tmp_path: Path) -> None:
    assert cli("convert", folder / "a.json", "--output", str(tmp_path)) == (0, "", "")
    assert (tmp_path / "a.json").is_file()


def test_what_cannot_be_written_is_told(cli: Any, folder: Path) -> None:
    code, out, err = cli(
        "convert", folder / "a.json", "--output", str(folder / "b.json" / "a.json")
    )
    assert (code, out, "File exists" in err or "Not a directory" in err) == (1, "", True)


def test_a_folder_without_a_workflow_is_told(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, _ = cli("check", tmp_path / "empty")
    assert (code, out) == (1, f"{tmp_path / 'empty'}: there is no workflow in this folder\n")
