"""Workflows broken on purpose: each rule of ComfyUI's validation, in several ways.

Each way takes a workflow that ComfyUI accepts and a number, from which the place follows, and gives a broken copy;
None where the workflow has no place for it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from comfy_worker.workflow.graph import Workflow, ancestors, links_of
from comfy_worker.workflow.node_defs import InputSpec, NodeDefs

__all__ = ["ACCEPTED", "REFUSED", "live_nodes"]

Broken = Workflow | None
Breaker = Callable[[Workflow, NodeDefs, int], Broken]
Target = tuple[str, InputSpec]


def live_nodes(workflow: Workflow, defs: NodeDefs) -> list[str]:
    """The nodes that an output needs, in the order of the workflow."""
    outputs = [node_id for node_id, node in workflow.items() if defs[node["class_type"]].is_output]
    live = {*outputs, *(above for node_id in outputs for above in ancestors(workflow, node_id))}
    return [node_id for node_id in workflow if node_id in live]


def _targets(workflow: Workflow, defs: NodeDefs) -> Iterator[Target]:
    for node_id in live_nodes(workflow, defs):
        node = workflow[node_id]
        for spec in defs[node["class_type"]].inputs.values():
            # ComfyUI checks what an input of its newer kinds expands to, and not the input itself.
            is_plain = not re.fullmatch(r"COMFY_\w+_V3", spec.type)
            if spec.name in node["inputs"] and is_plain:
                yield node_id, spec


def _is_literal(workflow: Workflow, target: Target) -> bool:
    return not isinstance(workflow[target[0]]["inputs"][target[1].name], list)


def _at(
    fits: Callable[[Workflow, Target], bool], broken: Callable[[Workflow, NodeDefs, Target], Any]
) -> Breaker:
    """Break at an input that fits; ``broken`` gives a value, ``DELETE``, or None for no target."""

    def breaker(workflow: Workflow, defs: NodeDefs, number: int) -> Broken:
        targets = [target for target in _targets(workflow, defs) if fits(workflow, target)]
        if not targets:
            return None
        node_id, spec = targets[number % len(targets)]
        value = broken(workflow, defs, (node_id, spec))
        if value is None:
            return None
        changed = copy.deepcopy(workflow)
        changed[node_id]["inputs"][spec.name] = None if value is NULL else value
        if value is DELETE:
            del changed[node_id]["inputs"][spec.name]
        return changed

    return breaker


DELETE, NULL = object(), object()


def _literal(*types: str) -> Callable[[Workflow, Target], bool]:
    return lambda workflow, target: (
        target[1].type in types
        and _is_literal(workflow, target)
        and not target[1].has_custom_validation
    )


def _link(workflow: Workflow, target: Target) -> bool:
    return target[1].name in links_of(workflow[target[0]])


def _listed(workflow: Workflow, target: Target) -> bool:
    return (
        target[1].is_listed
        and _is_literal(workflow, target)
        and not target[1].has_custom_validation
    )


def _model(workflow: Workflow, target: Target) -> bool:
    value = workflow[target[0]]["inputs"][target[1].name]
    return _listed(workflow, target) and str(value).endswith(".safetensors")


def _upload(workflow: Workflow, target: Target) -> bool:
    return target[1].has_custom_validation and target[1].is_upload and _is_literal(workflow, target)


def _limit(word: str, change: int) -> Breaker:
    return _at(
        lambda workflow, target: (
            _literal("INT", "FLOAT")(workflow, target) and word in target[1].options
        ),
        lambda _w, _d, target: target[1].options[word] + change,
    )


def _value(value: Any, *types: str) -> Breaker:
    return _at(_literal(*types), lambda _w, _d, _p: value)


def _linked_to(value: Callable[[Workflow, str, str], Any]) -> Breaker:
    return _at(_link, lambda workflow, _d, target: value(workflow, target[0], target[1].name))


def _other_slot(slot: Any) -> Breaker:
    return _linked_to(lambda workflow, node_id, name: [workflow[node_id]["inputs"][name][0], slot])


def _other_type(workflow: Workflow, defs: NodeDefs, target: Target) -> Any:
    """An output of a type that does not fit, of a node that is not downstream."""
    node_id, spec = target
    wanted = set(spec.type.split(","))
    for other in ancestors(workflow, node_id):
        for slot, output_type in enumerate(defs[workflow[other]["class_type"]].outputs):
            if wanted.isdisjoint(output_type.split(",")) and "*" not in (output_type, spec.type):
                return [other, slot]
    return None


def _circle(workflow: Workflow, defs: NodeDefs, number: int) -> Broken:
    """Link an input to an output further down that has its type."""
    found = [
        (above, spec.name, node_id, slot)
        for node_id in live_nodes(workflow, defs)
        for above in [node_id, *ancestors(workflow, node_id)]
        for spec in defs[workflow[above]["class_type"]].inputs.values()
        if spec.name in links_of(workflow[above])
        for slot, output_type in enumerate(defs[workflow[node_id]["class_type"]].outputs)
        if output_type == spec.type
    ]
    if not found:
        return None
    above, name, node_id, slot = found[number % len(found)]
    changed = copy.deepcopy(workflow)
    changed[above]["inputs"][name] = [node_id, slot]
    return changed


def _unknown(workflow: Workflow, defs: NodeDefs, number: int) -> Broken:
    changed = copy.deepcopy(workflow)
    node_id = list(changed)[number % len(changed)]
    changed[node_id]["class_type"] += "X"
    return changed


def _unknown_idle(workflow: Workflow, defs: NodeDefs, number: int) -> Broken:
    return {**copy.deepcopy(workflow), f"idle{number}": {"class_type": "NoSuchNode", "inputs": {}}}


def _no_output(workflow: Workflow, defs: NodeDefs, number: int) -> Broken:
    left = {
        node_id: node
        for node_id, node in workflow.items()
        if not defs[node["class_type"]].is_output
    }
    return copy.deepcopy(left) or None


def _idle(class_type: str, inputs: dict[str, Any]) -> Breaker:
    return lambda workflow, _d, number: {
        **copy.deepcopy(workflow),
        f"idle{number}": {"class_type": class_type, "inputs": copy.deepcopy(inputs)},
    }


def _undeclared(workflow: Workflow, defs: NodeDefs, number: int) -> Broken:
    changed = copy.deepcopy(workflow)
    changed[list(changed)[number % len(changed)]]["inputs"]["no_such_input"] = "x"
    return changed


def _required(is_link: bool) -> Breaker:
    return _at(
        lambda workflow, target: target[1].required and _link(workflow, target) == is_link,
        lambda _w, _d, _p: DELETE,
    )


# By the type of finding: what ComfyUI refuses.
REFUSED: dict[str, list[Breaker]] = {
    "unknown_class": [_unknown, _unknown_idle],
    "missing_model": [
        _at(_model, lambda _w, _d, _p: "absent.safetensors"),
        _at(
            _model,
            lambda workflow, _d, target: "sub/" + workflow[target[0]]["inputs"][target[1].name],
        ),
    ],
    "missing_input_file": [
        _at(_upload, lambda _w, _d, _p: "absent.png"),
        _at(
            _upload,
            lambda workflow, _d, target: (
                workflow[target[0]]["inputs"][target[1].name] + " [output]"
            ),
        ),
    ],
    "required_input_missing": [_required(is_link=True), _required(is_link=False)],
    "invalid_input_type": [
        _value("many", "INT", "FLOAT"),
        _value(NULL, "INT", "FLOAT"),
        _value({"a": 1}, "INT", "FLOAT"),
        _value({"__value__": [1, 2]}, "INT", "FLOAT"),
    ],
    "return_type_mismatch": [_at(_link, _other_type)],
    "value_smaller_than_min": [_limit("min", -1)],
    "value_bigger_than_max": [_limit("max", 1)],
    "value_not_in_list": [
        _at(_listed, lambda _w, _d, _p: "no such choice"),
        _at(_listed, lambda _w, _d, _p: 7.25),
        _at(_listed, lambda _w, _d, _p: NULL),
    ],
    "bad_linked_input": [
        _at(
            lambda workflow, target: _link(workflow, target) or _is_literal(workflow, target),
            lambda _w, _d, _p: [1, 2, 3],
        ),
        _linked_to(lambda workflow, node_id, name: [*workflow[node_id]["inputs"][name], 0]),
        _linked_to(lambda _w, _n, _i: []),
    ],
    "dangling_link": [
        _linked_to(lambda _w, _n, _i: ["no such node", 0]),
        _linked_to(lambda workflow, node_id, name: [12345, workflow[node_id]["inputs"][name][1]]),
        _linked_to(lambda _w, _n, _i: [["1"], 0]),
        _linked_to(lambda _w, _n, _i: [None, 0]),
    ],
    "bad_output_slot": [
        _other_slot(99),
        _other_slot(-99),
        _other_slot("0"),
        _other_slot(0.0),
        _other_slot(None),
    ],
    "cycle": [_circle],
    "no_output": [_no_output],
}
# What is strange, and what ComfyUI accepts all the same.
ACCEPTED: list[Breaker] = [
    _value("4", "INT"),
    _at(
        _literal("INT"),
        lambda workflow, _d, target: workflow[target[0]]["inputs"][target[1].name] + 0.25,
    ),
    _value(5, "STRING"),
    _value(NULL, "STRING"),
    _value("yes", "BOOLEAN"),
    _at(
        _literal("FLOAT"),
        lambda workflow, _d, target: str(workflow[target[0]]["inputs"][target[1].name]),
    ),
    _at(
        _literal("STRING"),
        lambda workflow, _d, target: {"__value__": workflow[target[0]]["inputs"][target[1].name]},
    ),
    _at(
        lambda _w, target: not target[1].required and target[1].type != "COMBO",
        lambda _w, _d, _p: DELETE,
    ),
    _linked_to(lambda _w, _n, _i: "a text where a link belongs"),
    _idle("ImageInvert", {}),
    _idle("KSampler", {"steps": "many", "model": ["no such node", 0]}),
    _idle("CheckpointLoaderSimple", {"ckpt_name": "absent.safetensors"}),
    _undeclared,
]
