"""What a job answers: its workflow's outputs, collected, encoded and delivered, or what a validation found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comfy_worker.comfyui.events import Executed
from comfy_worker.comfyui.execution import ExecutionResult
from comfy_worker.comfyui.process import ComfyUIProcess
from comfy_worker.comfyui.supervisor import RunningComfyUI
from comfy_worker.deadline import Clock
from comfy_worker.errors import NoOutput, ResultTooLarge
from comfy_worker.logs import without_secrets
from comfy_worker.outgoing import posted_size, to_json_bytes, within
from comfy_worker.planning.planner import Plan
from comfy_worker.request.schema import Output
from comfy_worker.response.collect import OutputFile, find_files, find_texts, find_unreported
from comfy_worker.response.deliver import ENVELOPE, MB, Delivery
from comfy_worker.response.encode import EncodedFile, encode, warnings_of
from comfy_worker.response.schema import Media, Result, Timings, Validation
from comfy_worker.workflow.graph import Workflow

__all__ = ["Outcome", "Tell", "json_size", "validation"]

log = logging.getLogger(__name__)

Tell = Callable[[dict[str, Any]], None]


class Outcome:
    """What a job's workflow makes, on its way to the client.

    Args:
        plan: the job.
        process: the ComfyUI that runs it.
        delivery: how its files reach the client.
        asked: in what form.
        text: what is kept in a picture, as :func:`encode` takes it.
        shaped: gives the result the shape that was asked for.
    """

    def __init__(
        self,
        plan: Plan,
        process: ComfyUIProcess,
        delivery: Delivery,
        asked: Output,
        text: Mapping[str, str],
        shaped: Callable[[Result], Any],
    ) -> None:
        self._plan = plan
        self._asked = asked
        self._text = text
        self._shaped = shaped
        self._folders = {"output": process.output_dir, "temp": process.temp_dir}
        self._delivery = delivery
        self._told: dict[str, list[EncodedFile]] = {}

    def tell(self, event: Executed, tell: Tell) -> None:
        """Hand over what one node saved, if it is small enough to be sent twice."""
        files = find_files({event.node_id: event.output}, self._folders)
        saved = [file for file in files if file.type == "output"]
        if not saved:
            return
        encoded = encode(saved, self._asked, self._text, self._delivery.stop)
        self._told[event.node_id] = encoded
        media = self._delivery.deliver_partial(encoded, self._plan.seed)
        if media is not None:
            media = self._with_own_seeds(media)
            tell({kind: [one.model_dump(exclude_none=True) for one in row] for kind, row in media.items()})

    def result(self, executed: ExecutionResult, clock: Clock, folder: str) -> Any:
        """Collect everything; what the workflow only previewed counts where it made nothing else.

        Args:
            executed: what the workflow left behind.
            clock: what the job's time went into.
            folder: the name of the job's own folder; what lies there unreported counts where nothing else is.

        Returns:
            The result in its shape.

        Raises:
            NoOutput: there is nothing.
            DeliveryFailed: it could not be delivered.
            ResultTooLarge: it could not be delivered.
        """
        files = find_files(executed.outputs, self._folders)
        texts = find_texts(executed.outputs)
        ready: list[EncodedFile] = []

        def warnings() -> list[str]:
            return [*self._plan.warnings, *warnings_of(ready), *self._delivery.warnings]

        def answer(media: dict[str, list[Media]]) -> Any:
            timings = Timings(stages={**clock.stages, "total": clock.total_ms()}, nodes=executed.node_ms)
            result = Result(
                **{"images": [], **self._with_own_seeds(media)},
                texts=texts or None,
                workflow=self._plan.name,
                seed=self._plan.seed,
                parameters=self._plan.parameters,
                timings=timings,
                warnings=warnings(),
            )
            return self._shaped(result)

        try:
            wanted = [file for file in files if file.type == "output" or self._asked.temp] or files
            if not wanted and not texts:
                wanted = files = self._unreported(folder)
            if not wanted and not texts:
                raise NoOutput("the workflow ended well but saved nothing; end it in a node such as SaveImage")
            ready += self._encoded(wanted)
            media = self._delivery.deliver(ready, self._plan.seed, lambda media: to_json_bytes(answer(media)))
            for warning in warnings():
                log.debug("%s", warning, extra={"action": "job.warning"})
            return answer(media)
        finally:
            made = [encoded.content for encoded in ready if isinstance(encoded.content, Path)]
            for path in (*made, *(file.path for file in files)):
                path.unlink(missing_ok=True)

    def _with_own_seeds(self, media: dict[str, list[Media]]) -> dict[str, list[Media]]:
        """The media, each with the seed of its own sampler: samplers beside each other may have different ones."""
        seeds = self._plan.seeds
        return {
            kind: [one.model_copy(update={"seed": seeds.get(one.node_id, one.seed)}) for one in row]
            for kind, row in media.items()
        }

    def _unreported(self, folder: str) -> list[OutputFile]:
        """What nodes wrote into the job's folder and did not report."""
        outputs = self._plan.roles.outputs
        return find_unreported(self._folders["output"] / folder, outputs[0] if outputs else "")

    def _encoded(self, files: Sequence[OutputFile]) -> list[EncodedFile]:
        """The files, ready to be delivered; those of a node that was told of already are."""
        left = [file for file in files if file.node_id not in self._told]
        fresh = encode(left, self._asked, self._text, self._delivery.stop)
        order = list(dict.fromkeys(file.node_id for file in files))
        told = [file for row in self._told.values() for file in row]
        return sorted([*told, *fresh], key=lambda file: order.index(file.node_id))


def json_size(answer: Any) -> int:
    """How many bytes an answer takes as it is posted."""
    return posted_size(answer)


def validation(plan: Plan, workflow: Workflow, comfyui: RunningComfyUI, limit: int) -> dict[str, Any]:
    """What ``validate_only`` answers.

    Args:
        plan: the job.
        workflow: its graph as it would be queued.
        comfyui: the one that would run it.
        limit: bytes of JSON that RunPod takes. Where the answer has more, long texts in ``parameters`` are cut:
            they stand in ``workflow`` too.

    Raises:
        ResultTooLarge: it has more all the same.
    """
    needs = [
        {**asdict(need), "installed": comfyui.model_path(need.folder, need.file) is not None}
        for need in plan.needs
    ]
    answer = Validation(
        workflow=workflow,
        name=plan.name,
        seed=plan.seed,
        parameters=plan.parameters,
        roles=plan.roles.outline(),
        needs=needs,
        findings=within(list(plan.findings), without_secrets),
        warnings=plan.warnings,
    ).model_dump(exclude_none=True)
    room = limit - ENVELOPE
    if posted_size(answer) > room:
        (answer["parameters"],) = within([answer["parameters"]])
    if (size := posted_size(answer)) > room:
        raise ResultTooLarge(
            f"the checked workflow takes {size / MB:.3g} MB and RunPod takes {limit / MB:.3g} MB; send fewer "
            "nodes or shorter texts",
            [{"size_mb": size / MB, "limit_mb": limit / MB}],
        )
    return answer
