"""Makes the keys of ComfyUI's cache small, and computes them without recursion.

ComfyUI's key of a node contains the inputs of every node above it. The keys of a chain of 800 nodes
take hundreds of megabytes, and a chain of a thousand nodes is too deep for Python's stack. Here a
node's key is a digest of its own inputs and of the keys above it. Two digests are equal if and only
if ComfyUI's keys are.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["shorten_cache_keys"]

_unique = itertools.count()


def shorten_cache_keys() -> None:
    """Change ComfyUI, for every prompt from now on."""
    from comfy_execution.caching import CacheKeySetInputSignature
    from comfy_execution.graph_utils import is_link

    # Raises an AttributeError if this ComfyUI has no such method.
    _ = CacheKeySetInputSignature.get_immediate_node_signature

    async def get_node_signature(self: Any, dynprompt: Any, node_id: str) -> str:
        digests: dict[str, str] = vars(self).setdefault("comfy_worker_digests", {})
        # The nodes between `node_id` and the current node, with the links still to follow.
        path = {node_id: iter(_links(dynprompt, node_id, is_link))}
        while path:
            current = next(reversed(path))
            above = next(path[current], None)
            if above is None:
                del path[current]
                if current not in digests:
                    signature = await self.get_immediate_node_signature(
                        dynprompt, current, _Known(digests)
                    )
                    digests[current] = _digest(signature)
            # A cycle or a missing node ends the walk; ComfyUI reports it.
            elif above not in digests and above not in path and dynprompt.has_node(above):
                path[above] = iter(_links(dynprompt, above, is_link))
        return digests[node_id]

    CacheKeySetInputSignature.get_node_signature = get_node_signature


class _Known(dict[str, str]):
    """The keys of the nodes above a node. A node without a key gets one that equals no other."""

    def __missing__(self, _node_id: str) -> str:
        return f"missing {next(_unique)}"


def _links(dynprompt: Any, node_id: str, is_link: Any) -> list[str]:
    if not dynprompt.has_node(node_id):
        return []
    inputs = dynprompt.get_node(node_id)["inputs"]
    return [value[0] for value in inputs.values() if is_link(value)]


def _digest(signature: Any) -> str:
    digest = hashlib.sha256()
    for word in _words(signature):
        digest.update(len(word).to_bytes(8, "big") + word)
    return digest.hexdigest()


def _words(value: Any) -> Any:
    """Yield a value as words. Two values have the same words if ComfyUI treats them as equal."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, (str, bool, bytes, type(None), int)):
            yield f"{type(part).__name__} {part!r}".encode("utf-8", "surrogatepass")
        elif isinstance(part, float) and not math.isnan(part):
            yield f"float {part!r}".encode()
        elif isinstance(part, Mapping):
            items = sorted(part.items(), key=lambda item: str(item[0]))
            yield f"mapping {len(items)}".encode()
            for key, item in reversed(items):
                parts += [item, key]
        elif isinstance(part, Sequence):
            yield f"sequence {len(part)}".encode()
            parts += reversed(part)
        else:
            # Such a value, like NaN, equals nothing, so the node never comes from the cache.
            yield f"unequal {next(_unique)}".encode()
