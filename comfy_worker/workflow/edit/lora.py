"""LoRA stacks, put into any graph: ``<lora:...>`` tags, and LoRA loaders behind a graph's own loaders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from comfy_worker.errors import InvalidValue, ModelMismatch, NoPlace, brief
from comfy_worker.workflow.constraints import InputConstraint
from comfy_worker.workflow.graph import Check, Link, Workflow, WorkflowEditor, ancestors, never_ends
from comfy_worker.workflow.loaders import Fits, Roots
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.roles import Roles
from comfy_worker.workflow.typed_workflow import TypedWorkflow

__all__ = ["LoraSpec", "parse_tags", "splice_loras"]

TAG = re.compile(r"<lora:[^<>]*>", re.IGNORECASE)
# What stands between tags that stand together, and the comma behind them with its blanks.
BETWEEN_TAGS = re.compile(r"[\s,]*")
COMMA_BEHIND = re.compile(r"[ \t]*,[ \t]*")
BLANKS_BEHIND = re.compile(r"[ \t]*")
BLANKS = " \t"

# More make no picture better, and each is a node to load.
MAX_LORAS = 100


@dataclass(frozen=True)
class LoraSpec:
    """One LoRA that a client asks for.

    Attributes:
        name: the file, with or without folder and extension.
        strength: how strongly it changes the diffusion model, -100..100.
        strength_clip: how strongly it changes the text encoder, -100..100; None: as ``strength``.
    """

    name: str
    strength: float = 1.0
    strength_clip: float | None = None

    @property
    def for_clip(self) -> float:
        """The strength for the text encoder."""
        return self.strength if self.strength_clip is None else self.strength_clip


def parse_tags(prompt: str) -> tuple[str, list[LoraSpec]]:
    """Take the ``<lora:name:strength:strength_clip>`` tags out of a prompt.

    A tag leaves with the blanks and the comma that only it needed; the rest of the prompt stays as it is.

    Args:
        prompt: the text as a client wrote it; both strengths may be left out.

    Returns:
        The prompt without its tags, and the LoRAs in their order.

    Raises:
        InvalidValue: a tag without a name, with a strength that is no number, or with too many parts.
    """
    spans = [found.span() for found in TAG.finditer(prompt)]
    if not spans:
        return prompt, []
    loras = [_read_tag(prompt[start:end]) for start, end in spans]
    return _without(prompt, spans), loras


def _read_tag(tag: str) -> LoraSpec:
    name, *strengths = (part.strip() for part in tag[len("<lora:") : -1].split(":"))
    try:
        if name and len(strengths) <= 2:
            return LoraSpec(name, *map(float, strengths))
    except ValueError:
        pass
    raise InvalidValue(
        f"prompt has the tag {brief(tag)}; write <lora:name>, <lora:name:strength> or "
        "<lora:name:strength:strength_clip> with numbers for the strengths",
        [{"key": "prompt", "value": brief(tag)}],
    )


def _without(prompt: str, spans: Sequence[tuple[int, int]]) -> str:
    """The prompt without its tags: what keeps the neighbours of tags apart stays, and no more.

    Reads the prompt once, from tag to tag: a pattern that tried each blank as a beginning would take the square of
    the number of blanks.
    """
    groups: list[tuple[int, int]] = []
    for start, end in spans:
        if groups and BETWEEN_TAGS.fullmatch(prompt, groups[-1][1], start):
            groups[-1] = (groups[-1][0], end)
        else:
            groups.append((start, end))
    text_end = len(prompt.rstrip())
    pieces: list[str] = []
    at = 0
    for start, end in groups:
        head = prompt[at:start]
        plain = head.rstrip(BLANKS)
        comma = COMMA_BEHIND.match(prompt, end)
        is_first = at == 0 and not head.strip()
        is_last = comma is None and end >= text_end
        body = plain[:-1].rstrip(BLANKS) if plain.endswith(",") and not is_first else plain
        if comma is not None:
            gap, at = comma.group(), comma.end()
        elif is_last:
            gap, at = "", len(prompt)
        else:
            blanks = BLANKS_BEHIND.match(prompt, end)
            assert blanks is not None
            at = blanks.end()
            gap = plain[len(body) :] + (head[len(plain) :] or blanks.group())
        if is_first or is_last:
            gap = ""
        pieces += ["" if is_first else body, gap]
    return "".join([*pieces, prompt[at:]])


def splice_loras(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    loras: Sequence[LoraSpec],
    *,
    fits: Fits | None = None,
    check: Check = never_ends,
) -> Workflow:
    """Put LoRAs behind the loaders of a graph, before all that uses them, in the order given.

    Every loader whose model a sampler uses gets them, so a merge of several models gets them once in all. A text
    encoder gets each once, with a model that it serves. LoRA loaders that the graph has stay, after the new ones.

    Args:
        workflow: an API-format graph; stays as it is.
        roles: of that graph.
        defs: the node classes of this ComfyUI, with the LoRA files that it finds.
        loras: what to add; none leaves the graph as it is.
        fits: whether a model takes a LoRA file; not known if absent.
        check: asked again and again, so that the edit of a large graph can be ended.

    Returns:
        A new graph.

    Raises:
        InvalidValue: a strength out of range, or too many LoRAs.
        ModelNotFound: a LoRA that is not installed.
        Ambiguous: a name that several files have.
        NoPlace: no sampler of the graph uses a model.
        ModelMismatch: a LoRA that fits none of the models.
    """
    editor = WorkflowEditor(workflow)
    if not loras:
        return editor.workflow
    if len(loras) > MAX_LORAS:
        raise InvalidValue(
            f"send at most {MAX_LORAS} loras, including those in the prompt, not {len(loras)}",
            [{"key": "loras", "value": len(loras), "maximum": MAX_LORAS}],
        )
    declared = defs["LoraLoader"].inputs
    chain = _Chain(editor, TypedWorkflow(workflow, defs, check), roles)
    if not chain.models:
        raise NoPlace(
            "this workflow cannot use loras: none of its samplers uses a model from a loader node"
        )
    for lora in loras:
        check()
        InputConstraint.of([declared["strength_model"]]).checked(
            f"strength of lora {lora.name!r}", lora.strength
        )
        InputConstraint.of([declared["strength_clip"]]).checked(
            f"strength_clip of lora {lora.name!r}", lora.for_clip
        )
        file = match(lora.name, declared["lora_name"].choices or (), "lora")
        models = [
            root for root in chain.models if fits is None or fits(root.node_id, file) is not False
        ]
        if not models:
            raise ModelMismatch(
                f"lora {file!r} does not fit any model of this workflow; "
                "use one that is made for the workflow's checkpoint",
                [{"file": file, "node_id": root.node_id} for root in chain.models],
            )
        chain.add(lora, file, models)
    return chain.close()


class _Chain:
    """LoRA loaders behind each loader of a graph.

    Attributes:
        models: the outputs of the loaders whose models the samplers use, first sampler first.
    """

    def __init__(self, editor: WorkflowEditor, graph: TypedWorkflow, roles: Roles) -> None:
        self._serves: dict[Link, dict[Link, None]] = {}
        roots = Roots(graph)
        models: dict[Link, None] = {}
        for sampler in roles.samplers:
            used = roots.models(sampler)
            models |= dict.fromkeys(used)
            for clip in roots.clips(sampler):
                self._serves.setdefault(clip, {}).update(dict.fromkeys(used))
        self.models = list(models)
        self._ends = {root: root for root in (*self.models, *self._serves)}
        # What a loader itself is made from does not come after it.
        loaders = [root.node_id for root in self._ends]
        makers = {*loaders, *ancestors(graph.workflow, *loaders, check=graph.check)}
        self._users = graph.workflow.keys() - makers
        self._editor = editor

    def add(self, lora: LoraSpec, file: str, models: Sequence[Link]) -> None:
        """Add one LoRA to some of the models, and to the text encoders that serve them."""
        partners: dict[Link, list[Link]] = {model: [] for model in models}
        for clip, served in self._serves.items() if lora.for_clip else ():
            fitting = [model for model in served if model in partners]
            # A checkpoint's text encoder goes with that checkpoint's model.
            for model in sorted(fitting, key=lambda model: model.node_id != clip.node_id)[:1]:
                partners[model].append(clip)
        for model, clips in partners.items():
            self._ends[model] = self._load(file, lora, self._ends[model], lora.strength, *clips[:1])
            for clip in clips[1:]:
                # There is no loader for the text encoder alone; the model that goes through here is used by none.
                self._load(file, lora, model, 0.0, clip)

    def _load(
        self, file: str, lora: LoraSpec, model: Link, strength: float, clip: Link | None = None
    ) -> Link:
        """Add one loader, and give its model."""
        inputs = {"model": model, "lora_name": file, "strength_model": strength}
        if clip is None:
            return Link(self._editor.add("LoraLoaderModelOnly", f"LoRA {file}", **inputs), 0)
        inputs |= {"clip": self._ends[clip], "strength_clip": lora.for_clip}
        node_id = self._editor.add("LoraLoader", f"LoRA {file}", **inputs)
        self._ends[clip] = Link(node_id, 1)
        return Link(node_id, 0)

    def close(self) -> Workflow:
        """Link all that used a loader to the end of its line."""
        self._editor.rewire(self._ends, lambda place: place.node_id in self._users)
        return self._editor.workflow
