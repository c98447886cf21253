"""The files of Comfy's API v2: their limit, and what is left of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_local.endpoint.api_v2.assets import Asset, AssetInfo, AssetStore
from comfy_local.endpoint.api_v2.errors import ApiError
from comfy_local.endpoint.api_v2.results import result_of, store_outputs
from comfy_local.endpoint.api_v2.submissions import Submissions
from comfy_local.endpoint.jobs import Jobs
from comfy_local.endpoint.outputs import OutputStore


@pytest.fixture
def assets() -> Iterator[AssetStore]:
    store = AssetStore(max_total_bytes=10)
    yield store
    store.close()


def add(assets: AssetStore, content: bytes, job_id: str | None = None) -> Asset:
    written = assets.write(io.BytesIO(content))
    return assets.add(written, AssetInfo("a.bin", "application/octet-stream", job_id))


def files(assets: AssetStore) -> list[Path]:
    return list(Path(assets._folder.name).iterdir())


def test_outputs_make_room_for_newer_files(assets: AssetStore) -> None:
    upload = add(assets, b"1234")
    output = add(assets, b"56789", "job")
    newer = add(assets, b"abcdef", "job")
    with pytest.raises(ApiError):
        assets.get(output.asset_id)
    assert {assets.get(upload.asset_id).path, newer.path} == set(files(assets))


def test_uploads_beyond_the_limit_are_refused(assets: AssetStore) -> None:
    add(assets, b"1234567890")
    with pytest.raises(ApiError) as caught:
        add(assets, b"x")
    assert (caught.value.status, caught.value.code) == (507, "storage_full")
    assert len(files(assets)) == 1
    add(assets, b"1234567890")  # the same content takes no space


def test_a_shared_file_outlives_one_asset(assets: AssetStore) -> None:
    first, second = add(assets, b"same"), add(assets, b"same")
    assets.remove(first.asset_id)
    assert second.path is not None
    assert second.path.read_bytes() == b"same"
    assets.remove(second.asset_id)
    assert files(assets) == []


def test_the_folder_goes_with_the_store() -> None:
    store = AssetStore()
    path = add(store, b"x").path
    store.close()
    assert path is not None
    assert not path.parent.exists()


def test_a_full_store_is_a_warning(assets: AssetStore) -> None:
    add(assets, b"1234567890")
    entry = {"filename": "b.png", "type": "base64", "data": "eHl6", "node_id": "9"}
    outputs, problems = store_outputs({"images": [entry]}, "job", assets)
    assert outputs == []
    assert problems == [
        "b.png is not among the outputs: all assets together may have 10 bytes; delete some"
    ]


class Queue:
    """A queue whose worker and clock the test plays."""

    def __init__(self, assets: AssetStore) -> None:
        self.now_s = 0.0
        self.store = OutputStore()
        self.jobs = Jobs(lambda: self.now_s, outputs=self.store)
        self.submissions = Submissions(self.jobs, assets, self.store, lambda: self.now_s)

    def finish(self, body: dict[str, Any], **more: Any) -> str:
        graph = {"1": {"class_type": "Any", "inputs": {"text": "x" * 60_000}}}
        job = self.submissions.submit({"workflow": graph, **more}, "key").job
        self.jobs.take("w", 1)
        self.jobs.post_result("w", job.job_id, body)
        return job.job_id


@pytest.fixture
def queue(assets: AssetStore) -> Iterator[Queue]:
    queue = Queue(assets)
    yield queue
    queue.store.close()


def test_old_jobs_go_with_their_files(queue: Queue, assets: AssetStore) -> None:
    entry = {"filename": "b.png", "type": "base64", "data": "eHl6", "node_id": "9"}
    job_id = queue.finish({"output": {"images": [entry]}})
    submission = queue.submissions.get(job_id)
    assert len(queue.submissions.outputs(submission)) == 1
    assert queue.submissions.workflow(submission)["1"]["class_type"] == "Any"
    queue.now_s += 3_000
    queue.jobs.tick()
    queue.submissions.forget_old()
    assert files(assets) == []
    assert list(Path(queue.store._folder.name).iterdir()) == []
    queue.finish({"output": {}})  # its key can be used again


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ("it broke", "failed", "failed"),
        ("OUT_OF_MEMORY: too large", "failed", "out_of_memory"),
        ("NODE_NOT_INSTALLED: no node", "failed", "invalid_workflow"),
    ],
)
def test_errors_have_the_apis_codes(queue: Queue, error: str, status: str, code: str) -> None:
    job_id = queue.finish({"error": error})
    submission = queue.submissions.get(job_id)
    shown = queue.submissions.error(submission)
    assert submission.status == status
    assert shown is not None
    assert (shown["code"], shown["message"]) == (code, error)


def test_a_timed_out_job_has_an_error(queue: Queue) -> None:
    graph = {"1": {"class_type": "Any"}}
    submission = queue.submissions.submit({"workflow": graph}, None)
    queue.jobs.take("w", 1)
    queue.now_s += 601
    queue.jobs.tick()
    shown = queue.submissions.error(submission)
    assert (submission.status, shown and shown["code"]) == ("failed", "timed_out")


def test_a_streams_last_value_is_the_result(queue: Queue) -> None:
    values = [{"percent": 1}, {"images": [], "warnings": ["last"]}]
    job_id = queue.finish({"output": json.loads(json.dumps(values))})
    assert result_of(queue.jobs.get(job_id)) == values[-1]
