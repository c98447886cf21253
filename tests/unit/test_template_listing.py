"""The command that lists the templates, for an older and a newer ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_worker.__main__ import main


@pytest.mark.parametrize(("version", "is_too_old"), [("0.3.75", True), ("0.33.0", False)])
def test_a_template_for_a_newer_comfyui_is_marked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: str,
    is_too_old: bool,
) -> None:
    (tmp_path / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
    main(["templates", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["krea2"]["too_old"] is is_too_old
    assert rows["krea2"]["requirements"]["comfyui"] == "0.24.1"
    assert rows["txt2img"]["too_old"] is False
    main(["templates"])
    listed = capsys.readouterr().out
    assert ("- needs ComfyUI 0.24.1 or newer" in listed) is is_too_old
