"""How much room is left, and what goes before a job is refused."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from comfy_common.container_memory import free_memory_mb
from comfy_worker.comfyui import resources as room
from comfy_worker.comfyui.resources import ensure_disk, ensure_memory
from comfy_worker.errors import DiskFull, OutOfMemory


def test_a_disk_with_room_is_left_alone(tmp_path: Path) -> None:
    ensure_disk(tmp_path, 0, reclaim=lambda _mb: pytest.fail("nothing has to go"))


def test_replaceable_files_go_before_a_refusal(tmp_path: Path) -> None:
    amounts: list[float] = []
    with pytest.raises(
        DiskFull, match=r"has \d+ MB free but needs 1000000000000 MB; give the endpoint"
    ):
        ensure_disk(tmp_path, 1e12, reclaim=amounts.append)
    assert len(amounts) == 1
    assert 0 < amounts[0] < 1e12


def test_models_are_unloaded_before_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([5.0, 5.0, 200.0])
    gone: list[str] = []
    ensure_memory(100, lambda: gone.append("models"), free_mb=lambda: next(left))
    assert gone == ["models"]
    ensure_memory(100, lambda: gone.append("again"), free_mb=lambda: 200.0)
    assert gone == ["models"]
    monkeypatch.setattr(room, "SETTLE_S", 0.05)
    with pytest.raises(OutOfMemory, match="has 5 MB of host memory free but needs 100 MB"):
        ensure_memory(100, lambda: None, free_mb=lambda: 5.0)


V2 = {
    "memory.max": "300000000",
    "memory.current": "250000000",
    "memory.stat": "anon 1\nactive_file 30000000\n",
}
V1 = {
    "memory/memory.limit_in_bytes": "300000000",
    "memory/memory.usage_in_bytes": "250000000",
    "memory/memory.stat": "total_active_file 10000000\ntotal_inactive_file 20000000\n",
}


@pytest.mark.parametrize("files", [V1, V2])
def test_the_containers_limit_counts_without_caches(tmp_path: Path, files: dict[str, str]) -> None:
    assert free_memory_mb(tmp_path) == pytest.approx(
        psutil.virtual_memory().available / 1e6, rel=0.3
    )
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert free_memory_mb(tmp_path) == pytest.approx(80)


def test_without_a_limit_the_host_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_mb(tmp_path) > 0
