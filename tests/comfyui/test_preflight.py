"""What the check says of a workflow is what ComfyUI's own validation says: nothing missed, no false alarm.

The official templates are converted, the models and pictures that the check finds missing are put there as
stand-ins, and then each is accepted; and hundreds of copies that are broken on purpose are refused by both.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.resources
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_setup.paths import REPO
from comfy_worker.graph.check import Finding, check
from comfy_worker.graph.convert import read_workflow
from comfy_worker.graph.needs import Sources
from comfy_worker.graph.workflow import Need, Workflow
from tests import pictures, shipped
from tests.broken_graphs import ACCEPTED, REFUSED
from tests.comfyui.conftest import RealComfyUI, launch_options, real_comfyui

OFFICIAL = REPO.parent / "shared" / "ui_to_api"
TOO_MANY_STEPS = "api_moonvalley_video_to_video_pose_control.json"

pytestmark = pytest.mark.comfyui


@dataclasses.dataclass
class Preflight:
    """A ComfyUI with all of its nodes, whose models and pictures come as the check asks for them."""

    comfyui: RealComfyUI
    model_root: Path
    workflows: dict[str, Workflow] = dataclasses.field(default_factory=dict)

    def findings(self, workflow: Workflow, needs: tuple[Need, ...] = ()) -> list[Finding]:
        sources = Sources(needs=needs, has_input=self.comfyui.running.has_input)
        return list(check(workflow, self.comfyui.defs, sources).findings)

    def refusal(self, workflow: Workflow) -> dict[str, Any]:
        """What ComfyUI itself finds wrong; empty where it accepts the workflow whole."""
        url = f"{self.comfyui.running.process.base_url}/comfy_worker/validate"
        answer: dict[str, Any] = requests.post(url, json=workflow, timeout=60).json()
        return {word: found for word, found in answer.items() if found}

    def add(self, name: str, workflow: Workflow, needs: tuple[Need, ...]) -> None:
        """Put a stand-in wherever the check says that a file is missing."""
        self.workflows[name] = workflow
        for finding in self.findings(workflow, needs):
            if finding["type"] == "missing_model":
                path = self.model_root / finding["folder"] / finding["given"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            elif finding["type"] == "missing_input_file":
                path = self.comfyui.input_dir / finding["given"]
                path.parent.mkdir(parents=True, exist_ok=True)
                pictures.photo().save(path, format="PNG")


def official() -> Iterator[tuple[str, Any]]:
    packages: dict[str, str] = json.loads((OFFICIAL / "index.json").read_text(encoding="utf-8"))
    for name, package in packages.items():
        path = importlib.resources.files(package).joinpath("templates").joinpath(name)
        yield name, json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def preflight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preflight]:
    root = tmp_path_factory.mktemp("models")
    for folder in ("diffusion_models", "loras", "text_encoders"):
        (root / folder).mkdir()  # ComfyUI looks for new files in folders that it knows
    with real_comfyui(launch_options(root, api_nodes=True)) as started:
        found = Preflight(started, root)
        for name in shipped.NAMES:
            needs = tuple(Need(**need) for need in shipped.params(name).get("needs", ()))
            found.add(name, shipped.graph(name), needs)
        for name, file in official() if OFFICIAL.is_dir() else ():
            converted = read_workflow(file, started.defs)
            found.add(name, converted.workflow, converted.needs)
        started.running.refresh()
        yield found


def test_every_template_is_accepted_by_both_once_its_files_are_there(preflight: Preflight) -> None:
    for name, workflow in preflight.workflows.items():
        if name != TOO_MANY_STEPS:
            assert (name, preflight.findings(workflow)) == (name, [])
            assert (name, preflight.refusal(workflow)) == (name, {})


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="../shared/ui_to_api is not here")
def test_the_one_template_that_is_wrong_is_refused_by_both(preflight: Preflight) -> None:
    workflow = preflight.workflows[TOO_MANY_STEPS]
    (finding,) = preflight.findings(workflow)
    assert (finding["type"], finding["input"], finding["given"]) == ("value_bigger_than_max", "steps", 146344522)
    (errors,) = preflight.refusal(workflow)["node_errors"].values()
    assert [error["type"] for error in errors["errors"]] == ["value_bigger_than_max"]


def test_what_is_broken_is_refused_by_both_and_what_is_only_strange_by_neither(preflight: Preflight) -> None:
    counted: Counter[str] = Counter()
    wrong = []
    ways = [(kind, breaker) for kind, breakers in REFUSED.items() for breaker in breakers]
    ways += [("accepted", breaker) for breaker in ACCEPTED]
    names = [name for name in preflight.workflows if name != TOO_MANY_STEPS]
    for number, (kind, breaker) in enumerate(ways):
        for turn, name in enumerate(names[number % 3 :: 3]):
            broken = breaker(preflight.workflows[name], preflight.comfyui.defs, number + 7 * turn)
            if broken is None:
                continue
            before = copy.deepcopy(broken)
            found = preflight.findings(broken)
            assert broken == before
            refused = preflight.refusal(broken)
            counted[kind] += 1
            kinds = {finding["type"] for finding in found}
            if bool(found) != bool(refused) or (kind in REFUSED and kind not in kinds) or not told(refused, found):
                wrong.append((kind, name, number, found, refused))
    assert wrong == []
    assert counted.keys() == {*REFUSED, "accepted"}
    assert all(count >= 10 for count in counted.values())
    assert counted.total() >= 300


def told(refused: dict[str, Any], found: list[Finding]) -> bool:
    """Whether each input that ComfyUI names is named by a finding too."""
    ours = {(finding["node_id"], finding["input"]) for finding in found}
    theirs = {
        (node_id, name)
        for node_id, entry in refused.get("node_errors", {}).items()
        for error in entry["errors"]
        if (name := error["extra_info"].get("input_name")) and "exception" not in error["type"]
    }
    return theirs <= ours
