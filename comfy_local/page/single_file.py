"""Writes the page into one HTML file: modules, style and the list of templates inside.

The modules become one script. So that this needs no bundler, they keep to three rules, which a test
checks: a module imports only names of modules beside it, by their own names; it exports only
declarations; and no two modules declare the same name at their top level.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["STATIC", "module_order", "single_file"]

STATIC = Path(__file__).parent / "static"
ENTRY = "app.js"
IMPORT = re.compile(r"^import \{[^}]*\} from \"\./([\w-]+\.js)\";\n", re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) )", re.MULTILINE)
STYLE_LINK = '<link rel="stylesheet" href="page/app.css">'
SCRIPT_TAG = '<script type="module" src="page/app.js"></script>'
# The file may be opened from a disk or any server, so it names the addresses that it may call.
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data: blob: https: "
    "http://127.0.0.1:* http://localhost:*; media-src data: blob: https: http://127.0.0.1:* "
    "http://localhost:*; connect-src https: http://127.0.0.1:* http://localhost:*; "
    "base-uri 'none'; form-action 'none'"
)


def single_file(catalog: Mapping[str, Any], *, static: Path = STATIC) -> str:
    """Return the page as the text of one HTML file.

    Args:
        catalog: the templates and files to offer, as the command `catalog` prints
            them.
        static: the folder of the page's files.
    """
    names = module_order(static)
    script = "\n".join(_plain((static / name).read_text(encoding="utf-8")) for name in names)
    style = (static / "app.css").read_text(encoding="utf-8")
    policy = POLICY.format(script=_hash(script), style=_hash(style))
    # In a script element, only "<" could end the element or begin a comment.
    data = json.dumps(catalog).replace("<", "\\u003c")
    page = (static / "index.html").read_text(encoding="utf-8")
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    page = page.replace("<head>", f"<head>\n{meta}", 1)
    page = page.replace(STYLE_LINK, f"<style>{style}</style>", 1)
    scripts = (
        f'<script type="application/json" id="catalog">{data}</script>\n'
        f'<script type="module">{script}</script>'
    )
    return page.replace(SCRIPT_TAG, scripts, 1)


def module_order(static: Path = STATIC) -> list[str]:
    """Return the names of the modules, each after the modules that it imports."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        for imported in IMPORT.findall((static / name).read_text(encoding="utf-8")):
            if imported not in ordered:
                visit(imported)
        ordered[name] = None

    visit(ENTRY)
    return list(ordered)


def _plain(module: str) -> str:
    """Return a module without its imports and without the word ``export``."""
    return EXPORT.sub("", IMPORT.sub("", module))


def _hash(text: str) -> str:
    """Return what a Content-Security-Policy calls a hash source."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
