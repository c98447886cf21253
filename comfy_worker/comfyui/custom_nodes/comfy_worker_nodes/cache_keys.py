"""Keeps the keys of ComfyUI's cache small, and makes them without recursion.

The key that ComfyUI makes of a node holds the inputs of every node above it. A chain of 800 nodes then keeps
hundreds of megabytes for its keys alone, and one of a thousand is too deep for Python's stack. Here a
node's key is a digest of its own inputs and of the keys above it, which says the same.
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

    _ = CacheKeySetInputSignature.get_immediate_node_signature  # an AttributeError where this ComfyUI has none

    async def get_node_signature(self: Any, dynprompt: Any, node_id: str) -> str:
        digests: dict[str, str] = vars(self).setdefault("comfy_worker_digests", {})
        way = {node_id: iter(_links(dynprompt, node_id, is_link))}
        while way:
            current = next(reversed(way))
            above = next(way[current], None)
            if above is None:
                del way[current]
                if current not in digests:
                    signature = await self.get_immediate_node_signature(dynprompt, current, _Known(digests))
                    digests[current] = _digest(signature)
            # A circle, and a node that is not there, end the way; ComfyUI itself tells of them.
            elif above not in digests and above not in way and dynprompt.has_node(above):
                way[above] = iter(_links(dynprompt, above, is_link))
        return digests[node_id]

    CacheKeySetInputSignature.get_node_signature = get_node_signature


class _Known(dict[str, str]):
    """The keys of the nodes above one; a node without a key equals nothing."""

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
    """A value as a series of words that no other value has, unless ComfyUI takes the two for equal."""
    row = [value]
    while row:
        part = row.pop()
        if isinstance(part, (str, bool, bytes, type(None), int)):
            yield f"{type(part).__name__} {part!r}".encode("utf-8", "surrogatepass")
        elif isinstance(part, float):
            # What is not a number equals nothing, and such a node is never taken from the cache.
            yield f"float {part!r}".encode() if part == part else f"unequal {next(_unique)}".encode()
        elif isinstance(part, Mapping):
            items = sorted(part.items(), key=lambda item: str(item[0]))
            yield f"mapping {len(items)}".encode()
            row += [word for item in reversed(items) for word in reversed(item)]
        elif isinstance(part, Sequence):
            yield f"sequence {len(part)}".encode()
            row += reversed(part)
        else:
            yield f"unequal {next(_unique)}".encode()
