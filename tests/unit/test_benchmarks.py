"""The scripts in benchmarks/ start, and what they are made of works on a small scale."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bar_chart import bar_chart
from benchmarks.graphs import from_checkpoint, of_size, with_steps, without_saving, z_image
from benchmarks.random_models import MODELS, first_layers, write_models
from comfy_common import paths

FOLDER = paths.REPO / "benchmarks"
SCRIPTS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if '"__main__"' in path.read_text("utf-8") and path.stem != "preflight"
)
SHAPES = {
    name: {
        "layers.0.norm.weight": (8,),
        "layers.1.norm.weight": (8,),
        "x.weight": (1024, 1024),
    }
    for files in MODELS.values()
    for name in files.values()
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_explains_itself(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    found = subprocess.run(command, cwd=paths.REPO, check=True, capture_output=True, text=True)
    assert found.stdout.startswith("usage:")


def test_every_comparison_has_a_command_line() -> None:
    assert {"overhead", "pixels", "inputs", "coldstart", "memory", "gpu", "all"} <= set(SCRIPTS)


def test_the_preflight_benchmark_runs() -> None:
    command = [sys.executable, "-m", "benchmarks.preflight"]
    found = subprocess.run(command, cwd=paths.REPO, check=True, capture_output=True, text=True)
    assert found.stdout.startswith("100 nodes: first ")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tiny", [False, True])
def test_random_models_have_the_shapes(tmp_path: Path, model: str, tiny: bool) -> None:
    files = write_models(tmp_path, model, tiny=tiny, shapes=SHAPES)
    assert [str(file.relative_to(tmp_path)) for file in files] == list(MODELS[model])
    for file in files:
        assert ("layers.1.norm.weight" in names_in(file)) is not tiny
        written = file.stat().st_mtime_ns
        write_models(tmp_path, model, tiny=tiny, shapes=SHAPES)
        assert file.stat().st_mtime_ns == written, "a file that is there is kept"


def names_in(file: Path) -> set[str]:
    """The names of the tensors of a .safetensors file."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return set(json.loads(data[8 : 8 + size]))


def test_only_first_layers_are_kept() -> None:
    names = ("a.layers.0.x", "a.layers.1.x", "b.resblocks.0.layers.2.x", "embed.10.x")
    assert list(first_layers(dict.fromkeys(names, (1,)))) == ["a.layers.0.x", "embed.10.x"]


def test_steps_and_sizes_reach_the_sampler() -> None:
    for job in (of_size(from_checkpoint(), 512), z_image(512, "a", "b", "c")):
        graph = with_steps(job, 7)["workflow"]
        assert graph["4"]["class_type"] == "KSampler"
        assert graph["4"]["inputs"]["steps"] == 7
        assert graph["2"]["inputs"]["width"] == 512
        ends = {node["class_type"] for node in without_saving(job)["workflow"].values()}
        assert "PreviewAny" in ends
        assert "SaveImage" not in ends


def test_a_chart_shows_bars_and_goals() -> None:
    chart = bar_chart({"a <b>": 0.5, "c": 1.5}, {"a <b>": 0.4})
    assert chart.startswith("<svg")
    assert "a &lt;b&gt;" in chart
    assert chart.count("<line") == 1
