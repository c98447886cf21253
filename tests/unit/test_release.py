"""A release is made only if tag, code and changelog agree, and it carries what the docs promise."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from comfy_common.paths import REPO
from comfy_common.version import VERSION
from docs.tools.release_notes import notes

CHANGELOG = "# Changelog\n\n## 1.1.0 (2027-01-02)\n\n- New.\n\n## 1.0.0 (2026-11-30)\n\n- First.\n"


def test_notes_are_the_section_of_a_version() -> None:
    assert notes("1.1.0", CHANGELOG, "1.1.0") == "- New.\n"
    assert notes("1.0.0", CHANGELOG, "1.0.0") == "- First.\n"


@pytest.mark.parametrize(
    ("version", "changelog", "problem"),
    [
        ("1.1.0", CHANGELOG, r"the tag is 1\.1\.0, and comfy_common/version\.py has 1\.0\.0"),
        ("1.0.0", "## Unreleased\n\n- New.\n", r"no section `## 1\.0\.0 \(YYYY-MM-DD\)`"),
    ],
)
def test_another_version_is_refused(version: str, changelog: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        notes(version, changelog, "1.0.0")


@pytest.mark.parametrize(("version", "status"), [(VERSION, 0), ("0.0.1", 1)])
def test_this_version_can_be_released(version: str, status: int) -> None:
    command = [sys.executable, "-m", "docs.tools.release_notes", version]
    finished = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert finished.returncode == status
    assert ("### Added" in finished.stdout) == (status == 0)


def test_the_workflow_publishes_what_the_docs_promise() -> None:
    text = (REPO / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    steps = {step.get("name"): step.get("run", "") for step in jobs["image"]["steps"]}
    assert "--sbom=true --provenance=mode=max" in steps["Build and publish"]
    assert "tests/container/smoke.sh" in steps["Run the published image"]
    assert "tests/container/layers.py" in steps["Size by layer"]
    assert jobs["image"]["needs"] == ["test", "version"]
    assert jobs["release"]["needs"] == "image"
    for name in ("version", "release"):
        assert "docs.tools.release_notes" in jobs[name]["steps"][-1]["run"]
