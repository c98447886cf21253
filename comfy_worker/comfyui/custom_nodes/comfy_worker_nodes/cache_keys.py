"""Makes the keys of ComfyUI's cache small, and computes them without recursion.

ComfyUI's key of a node contains the inputs of every node above it. The keys of a chain of 800 nodes take hundreds
of megabytes, and a chain of a thousand is too deep for Python's stack. Here a node's key is a digest of its own
inputs and of the keys above it; two keys are equal in the same cases.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["shorten_cache_keys"]

_unique = itertools.count()


def shorten_cache_keys() -> None:
    """Take effect for every prompt from now on."""
    from comfy_execution.caching import CacheKeySetInputSignature
    from comfy_execution.graph_utils import is_link

    _ = (
        CacheKeySetInputSignature.get_immediate_node_signature
    )  # an AttributeError where this ComfyUI has none

    async def get_node_signature(self: Any, dynprompt: Any, node_id: str) -> str:
        digests: dict[str, str] = vars(self).setdefault("comfy_worker_digests", {})
        way = {node_id: iter(_links(dynprompt, node_id, is_link))}
        while way:
            current = next(reversed(way))
            above = next(way[current], None)
            if above is None:
                del way[current]
                if current not in digests:
                    signature = await self.get_immediate_node_signature(
                        dynprompt, current, _Known(digests)
                    )
                    digests[current] = _digest(signature)
            # A cycle or a missing node ends the walk; ComfyUI reports it.
            elif above not in digests and above not in way and dynprompt.has_node(above):
                way[above] = iter(_links(dynprompt, above, is_link))
        return digests[node_id]

    CacheKeySetInputSignature.get_node_signature = get_node_signature


class _Known(dict[str, str]):
    """The keys of the nodes above a node; a node without a key equals no other."""

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
    """A value as a series of words; two values have the same words if ComfyUI takes them for equal."""
    row = [value]
    while row:
        part = row.pop()
        if isinstance(part, (str, bool, bytes, type(None), int)):
            yield f"{type(part).__name__} {part!r}".encode("utf-8", "surrogatepass")
        elif isinstance(part, float):
            # NaN equals nothing, so such a node never comes from the cache.
            yield (
                f"float {part!r}".encode() if part == part else f"unequal {next(_unique)}".encode()
            )
        elif isinstance(part, Mapping):
            items = sorted(part.items(), key=lambda item: str(item[0]))
            yield f"mapping {len(items)}".encode()
            row += [word for item in reversed(items) for word in reversed(item)]
        elif isinstance(part, Sequence):
            yield f"sequence {len(part)}".encode()
            row += reversed(part)
        else:
            yield f"unequal {next(_unique)}".encode()
