"""Builds a job's result: collects the outputs of its workflow, encodes them and delivers them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_worker.comfyui.events import Executed
from comfy_worker.comfyui.execution import ExecutionResult
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.errors import NoOutput
from comfy_worker.job import Job
from comfy_worker.job_record import JobRecord
from comfy_worker.outgoing import to_json_bytes
from comfy_worker.planning.plan import Plan
from comfy_worker.response.collect import OutputFile, find_files, find_texts, find_unreported
from comfy_worker.response.deliver import Delivery, MediaByCategory
from comfy_worker.response.encode import EncodedFile, encode, warnings_of
from comfy_worker.response.schema import Media, Result, Text, Timings
from comfy_worker.response.shapes import shape

__all__ = ["ResultBuilder"]

log = logging.getLogger(__name__)


class ResultBuilder:
    """Builds the result of one job.

    Args:
        job: the job.
        plan: its plan.
        process: the ComfyUI that runs it.
        delivery: how its files reach the client.
        png_metadata: the texts that a picture keeps, as :func:`encode` takes them.
        record: gets what the log says about the result.
    """

    def __init__(
        self,
        job: Job,
        plan: Plan,
        process: ComfyUIProcess,
        delivery: Delivery,
        png_metadata: dict[str, str],
        record: JobRecord,
    ) -> None:
        self._job = job
        self._plan = plan
        self._folders = {"output": process.output_dir, "temp": process.temp_dir}
        self._delivery = delivery
        self._png_metadata = png_metadata
        self._record = record
        record.workflow = plan.name
        record.steps = plan.parameters.get("steps")
        # By node, what is already encoded because it was streamed.
        self._streamed: dict[str, list[EncodedFile]] = {}

    def streamed(self, event: Executed) -> dict[str, Any] | None:
        """Encode what one node saved; None if there is nothing, or too much to be sent twice."""
        files = find_files({event.node_id: event.output}, self._folders)
        saved = [file for file in files if file.type == "output"]
        if not saved:
            return None
        encoded = self._encoded(saved)
        self._streamed[event.node_id] = encoded
        media = self._delivery.deliver_partial(encoded, self._plan.seed)
        if media is None:
            return None
        return {name: _as_json(row) for name, row in _with_seeds(media, self._plan).items()}

    def build(self, executed: ExecutionResult, folder: str) -> Any:
        """Collect everything.

        Previews count only if the workflow saved nothing, or if the client wants them.

        Args:
            executed: what the workflow left behind.
            folder: the name of the job's own folder. Files there that no node reported count if
                nothing else was found.

        Returns:
            The result in the shape that the client asked for.

        Raises:
            NoOutput: the workflow made nothing.
            DeliveryFailed: the result could not be delivered.
            ResultTooLarge: the result could not be delivered.
        """
        outputs = self._in_graph_order(executed.outputs)
        files = find_files(outputs, self._folders)
        texts = find_texts(outputs)
        encoded: list[EncodedFile] = []
        try:
            wanted = self._wanted(files)
            if not wanted and not texts:
                wanted = files = self._unreported(folder)
            if not wanted and not texts:
                raise NoOutput(
                    "the workflow finished but saved nothing; end it with a node such as SaveImage"
                )
            encoded += self._all_encoded(wanted)
            draft = _Draft(self._job, self._plan, self._delivery, executed, texts, encoded)
            media = self._delivery.deliver(encoded, self._plan.seed, draft.to_json)
            self._record.files = len(encoded)
            self._record.bytes = sum(file.size for file in encoded)
            self._record.warnings = len(draft.warnings())
            for warning in draft.warnings():
                log.debug("%s", warning, extra={"action": "job.warning"})
            return draft.with_media(media)
        finally:
            _remove(files, encoded)

    def _in_graph_order(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Sort outputs as the client's workflow lists their nodes: ComfyUI's order is random."""
        workflow = list(self._plan.workflow)
        positions = dict(zip(workflow, range(len(workflow)), strict=True))
        ordered = sorted(outputs, key=lambda node_id: positions.get(node_id, len(workflow)))
        return {node_id: outputs[node_id] for node_id in ordered}

    def _wanted(self, files: list[OutputFile]) -> list[OutputFile]:
        """Leave previews out, unless there is nothing else or the client wants them."""
        if self._job.input.output.temp:
            return files
        return [file for file in files if file.type == "output"] or files

    def _unreported(self, folder: str) -> list[OutputFile]:
        """Find what nodes wrote into the job's folder without reporting it."""
        outputs = self._plan.roles.outputs
        return find_unreported(self._folders["output"] / folder, outputs[0] if outputs else "")

    def _all_encoded(self, files: Sequence[OutputFile]) -> list[EncodedFile]:
        """Encode files in their order; those that were streamed already are."""
        left = [file for file in files if file.node_id not in self._streamed]
        encoded = self._encoded(left)
        for row in self._streamed.values():
            encoded += row
        order = list(dict.fromkeys(file.node_id for file in files))
        return sorted(encoded, key=lambda file: order.index(file.node_id))

    def _encoded(self, files: Sequence[OutputFile]) -> list[EncodedFile]:
        return encode(files, self._job.input.output, self._png_metadata, self._job.deadline)


@dataclass(frozen=True)
class _Draft:
    """A result without its media: how files are delivered depends on the size of the rest."""

    job: Job
    plan: Plan
    delivery: Delivery
    executed: ExecutionResult
    texts: list[Text]
    files: list[EncodedFile]

    def to_json(self, media: MediaByCategory) -> bytes:
        """Return the result as it is posted."""
        return to_json_bytes(self.with_media(media))

    def with_media(self, media: MediaByCategory) -> Any:
        """Return the result in the shape that the client asked for."""
        timer = self.job.timer
        result = Result(
            **{"images": [], **_with_seeds(media, self.plan)},
            texts=self.texts or None,
            workflow=self.plan.name,
            seed=self.plan.seed,
            parameters=self.plan.parameters,
            timings=Timings(
                stages={**timer.stages, "total": timer.total_ms()}, nodes=self.executed.node_ms
            ),
            warnings=self.warnings(),
        )
        return shape(result, self.job.response, self.job.raw_input)

    def warnings(self) -> list[str]:
        """Return all warnings; more may come while the files are delivered."""
        return [*self.plan.warnings, *warnings_of(self.files), *self.delivery.warnings]


def _with_seeds(media: MediaByCategory, plan: Plan) -> MediaByCategory:
    """Give each file the seed of its own sampler: a workflow may have several."""
    with_seeds: MediaByCategory = {}
    for name, row in media.items():
        with_seeds[name] = []
        for item in row:
            seed = plan.seeds.get(item.node_id, item.seed)
            with_seeds[name].append(item.model_copy(update={"seed": seed}))
    return with_seeds


def _as_json(media: Sequence[Media]) -> list[dict[str, Any]]:
    return [item.model_dump(exclude_none=True) for item in media]


def _remove(files: Sequence[OutputFile], encoded: Sequence[EncodedFile]) -> None:
    for file in encoded:
        if isinstance(file.content, Path):
            file.content.unlink(missing_ok=True)
    for output in files:
        output.path.unlink(missing_ok=True)
