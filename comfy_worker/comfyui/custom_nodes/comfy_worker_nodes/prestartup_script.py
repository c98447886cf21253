"""Leaves ``torch._dynamo`` out of ComfyUI's start; ComfyUI runs this before it imports torch.

``torchvision.ops.roi_align`` imports it, with 400 modules, for a function that it calls only if
somebody aligns regions of interest. Here the function imports it when it is called.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType

MODULE = "torchvision.ops.roi_align"
EAGER = "from torch._dynamo.utils import is_compile_supported\n"
LAZY = """def is_compile_supported(device_type):
    from torch._dynamo.utils import is_compile_supported as is_supported
    return is_supported(device_type)
"""


class DeferringLoader(importlib.machinery.SourceFileLoader):
    """Loads the module with the import moved into a function."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the changed source; a source that is not as expected is loaded unchanged."""
        source = self.get_data(self.path).decode("utf-8")
        if source.count(EAGER) != 1:
            return super().get_code(fullname)
        code: CodeType = compile(source.replace(EAGER, LAZY), self.path, "exec", dont_inherit=True)
        return code


class DeferringFinder(importlib.abc.MetaPathFinder):
    """Finds the module once, and then leaves."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec with the loader above."""
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = DeferringLoader(spec.loader.name, spec.loader.path)
        return spec


if os.environ.get("COMFY_WORKER_DEFER_IMPORTS") == "1" and MODULE not in sys.modules:
    sys.meta_path.insert(0, DeferringFinder())
