"""LoRA stacks, put into any graph.

Owns the ``<lora:...>`` tags and the chain of LoRA loaders behind a graph's own loaders. Knows no family: whether
a LoRA fits a model is asked of the caller.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from comfy_worker.errors import InvalidValue, ModelMismatch, NoPlace, brief
from comfy_worker.workflow.constraints import Limits
from comfy_worker.workflow.graph import Editor, Link, Workflow, ancestors
from comfy_worker.workflow.loaders import Fits, clip_roots, model_roots
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.roles.find import Roles
from comfy_worker.workflow.tracing import Graph

__all__ = ["LoraSpec", "parse_tags", "splice_loras"]

TAG = r"(?i:<lora:[^<>]*>)"
# Tags that stand together, the blanks around them, and the comma on each side.
TAGS = re.compile(
    rf"(?P<before>\A\s*|[ \t]*,)?(?P<blank>[ \t]*){TAG}(?:[\s,]*{TAG})*"
    r"(?:(?P<after>[ \t]*,[ \t]*|\s*\Z)|(?P<blanks>[ \t]*))"
)


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
    loras = [_read_tag(tag) for tag in re.findall(TAG, prompt)]
    return (TAGS.sub(_gap, prompt) if loras else prompt), loras


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
        [{"key": "prompt", "value": tag}],
    )


def _gap(tags: re.Match[str]) -> str:
    """What stays where tags were: what keeps their neighbours apart, and no more."""
    before, after = tags["before"], tags["after"]
    at_start = before is not None and "," not in before
    at_end = after is not None and "," not in after
    if at_start or at_end:
        return ""
    return str(after or (before or "") + (tags["blank"] or tags["blanks"]))


def splice_loras(
    workflow: Workflow,
    roles: Roles,
    defs: NodeDefs,
    loras: Sequence[LoraSpec],
    *,
    fits: Fits | None = None,
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

    Returns:
        A new graph.

    Raises:
        InvalidValue: a strength out of range.
        ModelNotFound: a LoRA that is not installed.
        Ambiguous: a name that several files have.
        NoPlace: no sampler of the graph uses a model.
        ModelMismatch: a LoRA that fits none of the models.
    """
    editor = Editor(workflow)
    if not loras:
        return editor.workflow
    declared = defs["LoraLoader"].inputs
    chain = _Chain(editor, Graph(workflow, defs), roles)
    if not chain.models:
        raise NoPlace("loras have no place in this graph: no sampler of it uses a model from a loader")
    for lora in loras:
        Limits.of([declared["strength_model"]]).checked(f"strength of lora {lora.name!r}", lora.strength)
        Limits.of([declared["strength_clip"]]).checked(f"strength_clip of lora {lora.name!r}", lora.for_clip)
        file = match(lora.name, declared["lora_name"].choices or (), "lora")
        models = [root for root in chain.models if fits is None or fits(root.node_id, file) is not False]
        if not models:
            raise ModelMismatch(
                f"lora {file!r} fits no model of this graph; name one that is made for the graph's checkpoint",
                [{"file": file, "node_id": root.node_id} for root in chain.models],
            )
        chain.add(lora, file, models)
    return chain.close()


class _Chain:
    """LoRA loaders behind each loader of a graph.

    Attributes:
        models: the outputs of the loaders whose models the samplers use, first sampler first.
    """

    def __init__(self, editor: Editor, graph: Graph, roles: Roles) -> None:
        self.models: list[Link] = []
        self._serves: dict[Link, list[Link]] = {}
        for sampler in roles.samplers:
            roots = model_roots(graph, sampler)
            self.models += [root for root in roots if root not in self.models]
            for clip in clip_roots(graph, sampler):
                self._serves.setdefault(clip, []).extend(roots)
        self._ends = {root: root for root in (*self.models, *self._serves)}
        # What a loader itself is made from does not come after it.
        makers = {up for root in self._ends for up in (root.node_id, *ancestors(graph.workflow, root.node_id))}
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

    def _load(self, file: str, lora: LoraSpec, model: Link, strength: float, clip: Link | None = None) -> Link:
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
        for root, end in self._ends.items():
            self._editor.rewire(root, end, lambda place: place.node_id in self._users)
        return self._editor.workflow
