"""Names the node classes that exist only in the editor and are resolved in an export.

Sources: ComfyUI's frontend, and the web folders of rgthree-comfy, ComfyUI-KJNodes, ComfyUI-Easy-Use
and cg-use-everywhere.
"""

from __future__ import annotations

__all__ = [
    "BROADCASTERS",
    "BROADCAST_PACK",
    "GETTERS",
    "PASS_ON",
    "PRIMITIVE",
    "SETTERS",
    "VIRTUAL",
]

PRIMITIVE = "PrimitiveNode"

GETTERS = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
"""A class that reads a named value -> the class that sets such values."""

SETTERS = frozenset(GETTERS.values())
"""Classes that give their input a name; their own output passes the input on."""

PASS_ON = frozenset({"Reroute", "Reroute (rgthree)"}) | SETTERS
"""Classes whose output stands for what is linked to their first input."""

BROADCASTERS = frozenset(
    {"Anything Everywhere", "Anything Everywhere3", "Anything Everywhere?", "Prompts Everywhere"}
)
"""Classes of Use Everywhere that feed inputs without a link. The editor keeps such links in
``extra.ue_links``. ComfyUI knows the classes, but they do nothing when they run."""

BROADCAST_PACK = "cg-use-everywhere"

NOTES = frozenset({"Note", "MarkdownNote", "Note+ (mtb)", "Label (rgthree)"})

CONTROLS = frozenset(
    {
        "Bookmark (rgthree)",
        "Fast Actions Button (rgthree)",
        "Fast Bypasser (rgthree)",
        "Fast Groups Bypasser (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Muter (rgthree)",
        "Mute / Bypass Relay (rgthree)",
        "Mute / Bypass Repeater (rgthree)",
        "Node Collector (rgthree)",
        "Node Combiner (rgthree)",
        "Random Unmuter (rgthree)",
        "easy bookmark",
    }
)
"""Classes that switch, collect or mark other nodes; their links carry no values."""

VIRTUAL = PASS_ON | GETTERS.keys() | BROADCASTERS | NOTES | CONTROLS | {PRIMITIVE}
"""All classes of this module: their nodes are not part of an export."""
