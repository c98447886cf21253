"""Computes the values that inputs receive through switches, expressions and text tools.

A few classes of ComfyUI itself are computed as ComfyUI computes them. A node with a single input (a
primitive, a reroute) passes it on. The outputs of all other classes are unknown: only a run can
tell them.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from comfy_worker.workflow.graph import Input, Workflow, as_link, links_of
from comfy_worker.workflow.walks import Check, Fold, never_ends

__all__ = ["COMPUTED", "UNKNOWN", "Values", "branch_names", "evaluate"]

UNKNOWN: Any = object()
"""Stands for a value that only a run of the workflow can tell."""

# Longer expressions and texts are not computed: a chain of text tools can double a text at each
# node.
MAX_EXPRESSION = 1000
MAX_TEXT = 200_000
MAX_EXPONENT = 64
MAX_NUMBER = 1e18
# A primitive or a reroute has one output, seldom a second.
MAX_OUTPUTS = 4

# The names that node packs use for the condition of a switch, and for its two branches.
CONDITIONS = ("switch", "condition", "boolean", "bool", "value")
TRUE_BRANCHES = ("on_true", "if_true", "true", "true_value")
FALSE_BRANCHES = ("on_false", "if_false", "false", "false_value")
# The names for the number that selects a branch, and for the branches with that number.
SELECTORS = ("select", "index", "selected_index")
# A node without any of these is no switch.
DECIDING = frozenset((*CONDITIONS, *SELECTORS))
NUMBERED = re.compile(r"(?:input|value|any|image|branch)_?(\d{1,3})")

Received = Mapping[str, Any]
"""By input name, the values that a node receives."""


class Values:
    """The values that the inputs of one workflow receive; each is computed once.

    Args:
        workflow: API format; must not change while this object is used.
        check: called repeatedly; it may raise an error to end long work.
    """

    def __init__(self, workflow: Workflow, check: Check = never_ends) -> None:
        self._workflow = workflow
        self._outputs: dict[str, tuple[Any, ...]] = {}
        self._compute = Fold(self._nodes_above, self._keep_outputs, check)

    def __call__(self, node_input: Input) -> Any:
        """Return the value that an input receives.

        :data:`UNKNOWN` if only a run can tell, or if the input does not exist or is empty.
        """
        if not self.has(node_input):
            return UNKNOWN
        value = self._workflow[node_input.node_id]["inputs"].get(node_input.name)
        link = as_link(value)
        if link is not None and link.node_id in self._workflow:
            self._compute(link.node_id)
        return self._received(value)

    def has(self, node_input: Input) -> bool:
        """Whether the workflow has the node of an input."""
        return node_input.node_id in self._workflow

    def branch(self, node_id: str) -> str | None:
        """Return the name of the input that a switch passes on.

        None for other nodes, or if the choice is not known.
        """
        inputs = self._workflow[node_id]["inputs"]
        branches = branch_names(inputs)
        if not branches:
            return None
        return _chosen(branches, self(Input(node_id, _condition_name(inputs))))

    def _nodes_above(self, node_id: str) -> list[str]:
        if not self._is_computed(node_id):
            return []
        links = links_of(self._workflow[node_id]).values()
        return [link.node_id for link in links if link.node_id in self._workflow]

    def _is_computed(self, node_id: str) -> bool:
        node = self._workflow[node_id]
        inputs = node["inputs"]
        return node["class_type"] in COMPUTED or len(inputs) == 1 or bool(branch_names(inputs))

    def _keep_outputs(self, node_id: str, _above: list[None]) -> None:
        if self._is_computed(node_id):
            self._outputs[node_id] = self._outputs_of(node_id)

    def _outputs_of(self, node_id: str) -> tuple[Any, ...]:
        node = self._workflow[node_id]
        inputs = node["inputs"]
        received = {name: self._received(value) for name, value in inputs.items()}
        branches = branch_names(inputs)
        if branches:
            name = _chosen(branches, received[_condition_name(inputs)])
            return (UNKNOWN if name is None else received[name],)
        compute = COMPUTED.get(node["class_type"])
        if compute is not None:
            return compute(received)
        # Every output has the only value that the node receives.
        return tuple(received.values()) * MAX_OUTPUTS

    def _received(self, value: Any) -> Any:
        link = as_link(value)
        if link is None:
            return UNKNOWN if value is None else value
        # In a circle, the outputs of a node may be needed before they are computed.
        outputs = self._outputs.get(link.node_id, ())
        return outputs[link.slot] if 0 <= link.slot < len(outputs) else UNKNOWN


def _condition_name(inputs: Mapping[str, Any]) -> str:
    return next(name for name in inputs if name in (*CONDITIONS, *SELECTORS))


def branch_names(inputs: Mapping[str, Any]) -> dict[Any, str]:
    """Return, by the value of its condition, the input that a switch passes on.

    Empty for nodes that are not switches.
    """
    if DECIDING.isdisjoint(inputs):
        return {}
    true = [name for name in TRUE_BRANCHES if name in inputs]
    false = [name for name in FALSE_BRANCHES if name in inputs]
    if true or false:
        has_condition = any(name in inputs for name in CONDITIONS)
        if not has_condition or len(inputs) != 1 + len(true) + len(false):
            return {}
        # A switch with a single branch passes it on, whatever its condition is.
        return {True: (true or false)[0], False: (false or true)[0]}
    numbered = {int(found[1]): name for name in inputs if (found := NUMBERED.fullmatch(name))}
    has_selector = any(name in inputs for name in SELECTORS)
    return dict(numbered) if has_selector and len(numbered) > 1 else {}


def _chosen(names: Mapping[Any, str], condition: Any) -> str | None:
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    if condition is UNKNOWN or isinstance(condition, (str, list, dict)):
        return None
    return names.get(bool(condition) if True in names and False in names else condition)


# --- the computations of ComfyUI's own classes


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _NotComputedError
    return value


class _NotComputedError(Exception):
    """A value is not known, or it is too large to compute."""


# A computation raises these if a value is missing, or if ComfyUI's own computation would fail too.
FAILURES = (
    _NotComputedError,
    ArithmeticError,
    LookupError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


def _known(compute: Callable[[Received], tuple[Any, ...]]) -> Callable[[Received], tuple[Any, ...]]:
    """Make a computation return no outputs if it fails."""

    def computed(received: Received) -> tuple[Any, ...]:
        try:
            return compute(received)
        except FAILURES:
            return ()

    return computed


def _expression(received: Received) -> tuple[Any, ...]:
    names = {
        name.removeprefix("values."): value
        for name, value in received.items()
        if name.startswith("values.")
    }
    result = evaluate(received["expression"], names)
    return float(result), int(result), bool(result)


def _converted(received: Received) -> tuple[Any, ...]:
    value = received["value"]
    if isinstance(value, str):
        text = value.strip()
        number = float(text)
        return number, int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else int(number)
    return float(value), int(value)


def _resolution(received: Received) -> tuple[Any, ...]:
    ratio = re.match(r"(\d+):(\d+)", _text(received["aspect_ratio"]))
    if ratio is None:
        raise _NotComputedError
    across, down = int(ratio[1]), int(ratio[2])
    multiple = received.get("multiple", 8)
    scale = math.sqrt(received["megapixels"] * 1024 * 1024 / (across * down))
    return round(across * scale / multiple) * multiple, round(down * scale / multiple) * multiple


def _concatenated(received: Received) -> tuple[Any, ...]:
    parts = (_text(received["string_a"]), _text(received["string_b"]))
    return (_text(_text(received.get("delimiter", "")).join(parts)),)


def _replaced(received: Received) -> tuple[Any, ...]:
    text, find, put = (_text(received[name]) for name in ("string", "find", "replace"))
    if (text.count(find) if find else len(text)) * max(1, len(put)) > MAX_TEXT:
        raise _NotComputedError
    return (text.replace(find, put),)


def _formatted(received: Received) -> tuple[Any, ...]:
    """Compute patterns with plain fields only: a width in a field could make a huge text."""

    def field(found: re.Match[str]) -> str:
        value = received[f"values.{found[1]}"]
        if value is UNKNOWN:
            raise _NotComputedError
        return str(value)[:MAX_TEXT]

    pattern = _text(received["f_string"])
    if re.search(r"[{}]", re.sub(r"\{[a-z]\}", "", pattern)):
        raise _NotComputedError
    return (_text(re.sub(r"\{([a-z])\}", field, pattern)),)


def _extracted(received: Received) -> tuple[Any, ...]:
    parsed = json.loads(_text(received["json_string"]))
    value = parsed.get(_text(received["key"])) if isinstance(parsed, dict) else None
    return ("" if value is None else str(value),)


def _shown(received: Received) -> tuple[Any, ...]:
    value = received["source"]
    if not isinstance(value, (str, int, float)):
        raise _NotComputedError
    return (str(value),)


def _choice(received: Received) -> tuple[Any, ...]:
    return received["choice"], received.get("index", 0)


def _truth(received: Received) -> list[bool]:
    if UNKNOWN in received.values():
        raise _NotComputedError
    return [bool(value) for value in received.values()]


COMPUTED: dict[str, Callable[[Received], tuple[Any, ...]]] = {
    "ComfyMathExpression": _known(_expression),
    "ComfyNumberConvert": _known(_converted),
    "ResolutionSelector": _known(_resolution),
    "StringConcatenate": _known(_concatenated),
    "StringReplace": _known(_replaced),
    "StringFormat": _known(_formatted),
    "JsonExtractString": _known(_extracted),
    "PreviewAny": _known(_shown),
    "CustomCombo": _known(_choice),
    "ComfyNotNode": _known(lambda received: (not _truth(received)[0],)),
    "ComfyAndNode": _known(lambda received: (all(_truth(received)),)),
    "ComfyOrNode": _known(lambda received: (any(_truth(received)),)),
}

# --- expressions

BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
COMPARED: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "sqrt": math.sqrt,
    "ceil": math.ceil,
    "floor": math.floor,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "int": int,
    "float": float,
    "sum": lambda *numbers: sum(numbers),
    "pow": lambda base, exponent: _power(base, exponent),
}


def evaluate(expression: Any, names: Mapping[str, Any]) -> Any:
    """Return the number that an arithmetic expression computes.

    Raises:
        Exception: one of :data:`FAILURES`.
    """
    if not isinstance(expression, str) or len(expression) > MAX_EXPRESSION:
        raise _NotComputedError
    return _number_of(ast.parse(expression.strip(), mode="eval").body, names)


def _number_of(node: ast.AST, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.IfExp):
        branch = node.body if _number_of(node.test, names) else node.orelse
        return _number_of(branch, names)
    if isinstance(node, ast.Name):
        return _bounded(names.get(node.id, UNKNOWN))
    if isinstance(node, ast.Constant):
        return _bounded(node.value)
    return _bounded(_operation(node, names))


def _operation(node: ast.AST, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.BinOp):
        left, right = _number_of(node.left, names), _number_of(node.right, names)
        return (
            _power(left, right)
            if isinstance(node.op, ast.Pow)
            else BINARY[type(node.op)](left, right)
        )
    if isinstance(node, ast.UnaryOp):
        return UNARY[type(node.op)](_number_of(node.operand, names))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return COMPARED[type(node.ops[0])](
            _number_of(node.left, names), _number_of(node.comparators[0], names)
        )
    if isinstance(node, ast.BoolOp):
        results = [_number_of(part, names) for part in node.values]
        stop = isinstance(node.op, ast.Or)
        return next((result for result in results if bool(result) == stop), results[-1])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if len(node.args) == 1 and _is_values(node.args[0]):
            return FUNCTIONS[node.func.id](*map(_bounded, names.values()))
        return FUNCTIONS[node.func.id](*(_number_of(part, names) for part in node.args))
    if isinstance(node, ast.Subscript) and _is_values(node.value):
        index = _number_of(node.slice, names)
        return list(names.values())[index] if index < len(names) else UNKNOWN
    raise _NotComputedError


def _is_values(node: ast.AST) -> bool:
    """Whether a part of an expression is ``values``, the list of all numbers."""
    return isinstance(node, ast.Name) and node.id == "values"


def _bounded(value: Any) -> Any:
    if not isinstance(value, (bool, int, float)) or not abs(value) <= MAX_NUMBER:
        raise _NotComputedError
    return value


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > MAX_EXPONENT:
        raise _NotComputedError
    return float(base) ** exponent if isinstance(base, float) or exponent < 0 else base**exponent
