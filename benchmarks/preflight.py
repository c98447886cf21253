"""How long the check of 100 nodes takes, the first time and after: ``python -m benchmarks.preflight``."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from comfy_worker.workflow.check.preflight import check
from comfy_worker.workflow.model_files import CheckContext
from comfy_worker.workflow.node_defs import NodeDefs

REPO = Path(__file__).absolute().parent.parent
NODES = 100
ROUNDS = 200


def main() -> None:
    defs = NodeDefs(
        json.loads((REPO / "tests" / "unit" / "editor_files.json").read_text("utf-8"))[
            "object_info"
        ]
    )
    workflow = {"0": {"class_type": "LoadImage", "inputs": {"image": "example.png"}}}
    for number in range(1, NODES - 1):
        inputs = {"image": [str(number - 1), 0], "blur_radius": 3, "sigma": 1.0}
        workflow[str(number)] = {"class_type": "ImageBlur", "inputs": inputs}
    end = {"images": [str(NODES - 2), 0], "filename_prefix": "x"}
    workflow["end"] = {"class_type": "SaveImage", "inputs": end}
    sources = CheckContext(has_input=lambda _name: True)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        assert check(workflow, defs, sources).findings == ()
        times.append((time.perf_counter() - began) * 1000)
    print(
        f"{NODES} nodes: first {times[0]:.2f} ms, median after {statistics.median(times[1:]):.2f} ms"
    )


if __name__ == "__main__":
    main()
