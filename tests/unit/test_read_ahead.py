"""Files that are read into the page cache before somebody needs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_common.paths import REPO
from comfy_worker import read_ahead, warm_up_files
from comfy_worker.read_ahead import PIECE_BYTES, ReadAhead
from comfy_worker.warm_up_files import model_files_of, torch_libraries


def drop_from_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def is_cached(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = path.stat().st_size
        pieces = range(0, size, PIECE_BYTES)
        return all(
            read_ahead._is_cached(
                descriptor, read_ahead._Piece(path, at, min(PIECE_BYTES, size - at))
            )
            for at in pieces
        )
    finally:
        os.close(descriptor)


def test_cold_file_is_read_while_others_run(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(os.urandom(1 << 20) * 40)
    drop_from_cache(file)
    if is_cached(file):
        pytest.skip("this file system keeps its files in memory")
    reading = ReadAhead(lambda: [file], 1e9)
    reading.start()
    assert reading.wait(60)
    assert is_cached(file)
    assert (reading.done_bytes, reading.total_bytes) == (40 << 20, 40 << 20)


def test_cached_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x" * 1000)
    if not is_cached(file):
        pytest.skip("this file system does not tell what is cached")
    lengths: list[int] = []
    preadv = os.preadv

    def counting(descriptor: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        lengths.append(len(buffers[0]))
        return preadv(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", counting)
    reading = ReadAhead(lambda: [file], 1e9)
    reading.start()
    assert reading.wait(60)
    assert set(lengths) == {1}


def test_no_more_is_read_than_memory_holds(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(3)]
    for file in files:
        file.write_bytes(b"x" * 100)
    reading = ReadAhead(lambda: [*files, tmp_path / "missing"], 250)
    reading.start()
    assert reading.wait(60)
    assert reading.done_bytes == 200


def test_failed_search_ends_the_reading() -> None:
    def find() -> list[Path]:
        raise OSError("the volume is gone")

    reading = ReadAhead(find, 1e9)
    reading.start()
    assert reading.wait(60)


def test_models_of_a_template_are_found(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "checkpoints").mkdir(parents=True)
    (second / "loras" / "styles").mkdir(parents=True)
    (second / "checkpoints").mkdir()
    for path in (
        first / "checkpoints" / "a.safetensors",
        second / "checkpoints" / "a.safetensors",
        second / "loras" / "styles" / "b.safetensors",
    ):
        path.write_bytes(b"x")
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "2": {"class_type": "X", "inputs": {"names": ["../../etc/x.bin", "absent.pt", 5]}},
    }
    (workflows / "mine.json").write_text(json.dumps(graph))
    params = {"needs": [{"folder": "loras", "file": "styles/b.safetensors"}]}
    (workflows / "mine.params.json").write_text(json.dumps(params))
    found = model_files_of("mine", [tmp_path / "none", workflows], [first, second])
    assert set(found) == {
        first / "checkpoints" / "a.safetensors",
        second / "loras" / "styles" / "b.safetensors",
    }


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000])
def test_unreadable_template_names_no_models(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    assert model_files_of("bad", [tmp_path], [tmp_path]) == []


def test_torch_is_found_without_an_import() -> None:
    code = (
        "import sys; from comfy_worker.warm_up_files import torch_libraries; "
        "print(*torch_libraries(has_gpu=False)); assert 'torch' not in sys.modules"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    assert "libtorch_cpu.so" in printed
    assert "libtorch_cuda.so" not in printed


def test_gpu_needs_more_libraries() -> None:
    assert len(torch_libraries(has_gpu=True)) > len(torch_libraries(has_gpu=False))


def test_no_torch_means_no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up_files, "find_spec", lambda _name: None)
    assert torch_libraries(has_gpu=True) == []
