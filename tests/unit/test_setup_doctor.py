"""The doctor's table and its verdict."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from comfy_common import paths
from comfy_common.comfyui_version import PARTS
from comfy_common.placeholder_names import TOY_CHECKPOINT
from comfy_setup import doctor, packages
from comfy_setup.doctor import Finding, gpu_findings
from comfy_setup.marker import write_marker

EMPTY_SAFETENSORS = b"\x02\0\0\0\0\0\0\0{}"
H200 = "NVIDIA H200, 143771 MiB, 143000 MiB, 570.86.15"


def test_a_gpu_is_shown_with_memory_and_driver() -> None:
    [finding] = gpu_findings(f"{H200}\n", "12.8")
    assert finding == Finding(
        "GPU", "ok", "NVIDIA H200, 143771 MiB (143000 MiB free), driver 570.86.15"
    )


def test_an_old_driver_fails_and_no_gpu_warns() -> None:
    found = gpu_findings(f"{H200}\nTesla T4, 15360 MiB, 15000 MiB, 470.57.02\n", "12.8")
    assert [finding.level for finding in found] == ["ok", "bad"]
    assert found[1].text.endswith(
        "driver 470.57.02: too old for torch built for CUDA 12.8: it must be 525 or newer"
    )
    assert [finding.level for finding in gpu_findings("\n", "12.8")] == ["note"]


def test_a_cuda_12_driver_does_not_run_13() -> None:
    [finding] = gpu_findings(H200, "13.0")
    assert finding.level == "bad"
    assert finding.text.endswith("it must be 580 or newer, or install with `--cuda 12`")
    assert [finding.level for finding in gpu_findings(H200.replace("570", "580"), "13.0")] == ["ok"]


def test_a_torch_without_cuda_fits_every_driver() -> None:
    assert [finding.level for finding in gpu_findings(H200, "")] == ["ok"]


def test_an_empty_machine_fails_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "MARKER", tmp_path / "stamp.json")
    monkeypatch.setattr(paths, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(paths, "VENV_PYTHON", tmp_path / ".venv" / "bin" / "python")
    assert (
        doctor.doctor({"COMFYUI_DIR": str(tmp_path), "MODELS_DIR": str(tmp_path / "models")}) == 1
    )
    output = capsys.readouterr().out
    for what in ("packages", "torch", "ComfyUI"):
        assert any(line.startswith(f"bad   {what}") for line in output.splitlines())
    assert "run `python3 -m comfy_setup install`" in output
    assert output.endswith("Jobs cannot run: see packages, torch, ComfyUI.\n")


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment, a ComfyUI and no models."""
    torch = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").touch()
    record = torch.parent / "torch-2.10.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text(
        "torch/__init__.py,sha256=00,0\ntorch/version.py,sha256=00,0\ntorch/lib/gone.py,,\n"
    )
    (torch / "version.py").write_text(
        "__version__ = '2.10.0+cu128'\ncuda: Optional[str] = '12.8'\n"
    )
    for part in PARTS:
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).touch()
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.3.75"\n')
    monkeypatch.setattr(paths, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(paths, "VENV_PYTHON", Path(sys.executable))
    monkeypatch.setattr(packages, "ready", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    return {"COMFYUI_DIR": str(tmp_path), "MODELS_DIR": str(tmp_path / "weights")}


def rows(environ: dict[str, str]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in doctor.examine(environ)}


def test_a_job_can_run_without_models_and_gpu(whole: dict[str, str]) -> None:
    found = rows(whole)
    assert found["torch"].text == "2.10.0+cu128, built for CUDA 12.8"
    assert found["ComfyUI"].text.startswith("0.3.75 (as it is)")
    assert found["checkpoints"].text.startswith("none: put one into")
    assert (found["GPU"].level, found["checkpoints"].level) == ("note", "note")
    assert doctor.doctor(whole) == 0


@pytest.mark.parametrize("setting", [{}, {"WORKER_CONCURRENCY": "0"}])
def test_json_has_the_rows_and_the_verdict(
    whole: dict[str, str], setting: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {**whole, **setting}
    assert doctor.doctor(environ, as_json=True) == len(setting)
    printed = json.loads(capsys.readouterr().out)
    assert printed["can_run"] is not bool(setting)
    rows_now = [asdict(finding) for finding in doctor.examine(environ)]
    # The free disk changes meanwhile.
    steady = [row for row in rows_now if row["subject"] != "free disk"]
    assert [row for row in printed["checks"] if row["subject"] != "free disk"] == steady
    assert [row["level"] for row in steady if row["subject"] == "settings"] == [
        "bad" if setting else "ok"
    ]


def test_checkpoints_are_counted_and_the_toy_reported(whole: dict[str, str]) -> None:
    folder = Path(whole["MODELS_DIR"]) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / TOY_CHECKPOINT).write_bytes(EMPTY_SAFETENSORS)
    text = rows(whole)["checkpoints"].text
    assert text.startswith("1 file, ")
    assert "none is real: the toy model" in text
    (folder / "real.ckpt").write_bytes(bytes(2_000_000))
    assert rows(whole)["checkpoints"] == Finding(
        "checkpoints", "ok", f"2 files, 2 MB: {folder} (2)"
    )


def test_damaged_checkpoints_alone_mean_no_job_runs(whole: dict[str, str]) -> None:
    folder = Path(whole["MODELS_DIR"]) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "a.safetensors").write_bytes(EMPTY_SAFETENSORS[:-1])
    assert rows(whole)["checkpoints"].level == "bad"
    assert f"{folder / 'a.safetensors'} is cut short" in rows(whole)["checkpoints"].text
    assert doctor.doctor(whole) == 1
    (folder / "b.safetensors").write_bytes(EMPTY_SAFETENSORS)
    assert rows(whole)["checkpoints"].level == "note"


def test_a_models_dir_must_be_a_folder(whole: dict[str, str]) -> None:
    Path(whole["MODELS_DIR"]).touch()
    assert rows(whole)["models"].level == "bad"
    assert "is not a folder: set MODELS_DIR to a folder" in rows(whole)["models"].text


def test_a_package_whose_module_is_gone_is_bad(whole: dict[str, str]) -> None:
    assert rows(whole)["packages"].level == "ok"
    next(paths.VENV.glob("lib/*/site-packages/torch/__init__.py")).unlink()
    assert rows(whole)["packages"].level == "bad"
    assert rows(whole)["packages"].text.startswith("torch/__init__.py is missing in")


def test_a_comfyui_without_its_comfy_is_bad(whole: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "comfy").rename(tmp_path / "away")
    assert rows(whole)["ComfyUI"].level == "bad"


@pytest.mark.parametrize(
    ("requirement", "level", "found"),
    [
        ("not-there>=1", "bad", "not-there>=1 (not installed)"),
        ("packaging>=99", "note", "packaging>=99 ("),
    ],
)
def test_unmet_requirements_of_comfyui_name_their_remedy(
    whole: dict[str, str], tmp_path: Path, requirement: str, level: str, found: str
) -> None:
    assert rows(whole)["ComfyUI"].level == "ok"
    (tmp_path / "requirements.txt").write_text(f"packaging\n{requirement}\n")
    finding = rows(whole)["ComfyUI"]
    assert finding.level == level
    assert f"do not meet its requirements: {found}" in finding.text
    assert finding.text.endswith(f"run `python3 -m comfy_setup install --comfyui-dir {tmp_path}`")


def test_a_stand_in_for_the_default_is_noted(whole: dict[str, str], tmp_path: Path) -> None:
    write_marker(
        tmp_path / ".comfy_setup.json", {"source": "wheel", "asked": "0.3.75", "chosen": ""}
    )
    assert rows(whole)["ComfyUI"].level == "note"
    assert "replaces 0.33.0, which `install` downloads" in rows(whole)["ComfyUI"].text


@pytest.mark.parametrize(("name", "value"), [("COMFY_ARGS", '"x'), ("WORKER_CONCURRENCY", "0")])
def test_settings_that_the_worker_refuses_are_bad(
    whole: dict[str, str], name: str, value: str
) -> None:
    assert rows(whole)["settings"].level == "ok"
    found = rows({**whole, name: value})["settings"]
    assert found.level == "bad"
    assert found.text.startswith(f"correct or unset these environment variables: {name}: ")


def test_settings_that_could_not_be_read_are_bad(
    whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(paths, "VENV_PYTHON", python)
    assert rows(whole)["settings"] == Finding(
        "settings", "bad", "reading the settings ended with exit code 3"
    )


def test_a_driver_that_does_not_answer_is_bad(whole: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert rows(whole)["GPU"].level == "bad"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{H200}'\n")
    assert rows(whole)["GPU"].level == "ok"


def test_a_taken_port_is_noted(whole: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "PORT", port)
        assert rows(whole)[f"port {port}"].level == "note"
    assert rows(whole)[f"port {port}"].level == "ok"


def test_packs_on_the_volume_are_checked(
    whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "INSTALLED", tmp_path / "installed.txt")
    packages.INSTALLED.write_text("pytest==9.0.0\n")
    volume = tmp_path / "volume"
    for name, text in {
        "whole": "pytest>2\n",
        "lacking": "no-such-package>=1\n",
        "old": "pytest<2\nno-such-package\n",
    }.items():
        (volume / "custom_nodes" / name).mkdir(parents=True)
        (volume / "custom_nodes" / name / "requirements.txt").write_text(text)
    (volume / "custom_nodes" / "plain").mkdir()
    environ = {**whole, "VOLUME_DIR": str(volume)}
    found = [row for row in doctor.examine(environ) if row.subject == "custom nodes"]
    [listed, lacking, old] = found
    assert listed.level == "ok"
    for name in ("lacking", "old", "plain", "whole"):
        assert name in listed.text
    assert lacking.level == old.level == "note"
    assert "lacking needs no-such-package>=1 (not installed): its nodes may fail" in lacking.text
    assert "old requires pytest<2, and the worker needs pytest " in old.text
    assert old.text.endswith(": use another version of the pack")
