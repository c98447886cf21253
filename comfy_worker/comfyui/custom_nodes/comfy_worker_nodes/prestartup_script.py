"""Makes ComfyUI's imports faster. ComfyUI runs this before it imports torch.

It puts off imports that ComfyUI does not need to start, and the search for garbage: imports leave
none, and the search takes a tenth of their time. This pack's ``__init__`` turns it on again.

A deferred module is loaded when something reads a name in it. Two modules read a name in
``torch._dynamo`` while they are imported; their source is changed so that they read it later. The
source of a third module is changed because its cache is too small.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import os
import sys
import threading
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

DEFERRED = (
    "scipy.integrate",
    "scipy.signal",
    "scipy.stats",
    "torch._dynamo",
    "torch.distributed.tensor",
)
# Replaces torch._dynamo.disable, which marks a method that must not be compiled. Nothing is
# compiled until torch._dynamo is loaded, so the method is called as it is before. A deferred module
# has a type of its own until it is loaded.
DISABLE = """
def _disable_when_compiling(method):
    import functools, sys
    compiling = []
    @functools.wraps(method)
    def call(*args, **kwargs):
        if type(sys.modules.get("torch._dynamo")) is not type(sys):
            return method(*args, **kwargs)
        if not compiling:
            compiling.append(torch._dynamo.disable(method))
        return compiling[0](*args, **kwargs)
    return call
"""
# By module: the text that is replaced, how often it occurs, and the new text.
EDITS = {
    "torchvision.ops.roi_align": (
        (
            "from torch._dynamo.utils import is_compile_supported\n",
            1,
            "def is_compile_supported(device_type):\n"
            "    from torch._dynamo.utils import is_compile_supported as is_supported\n"
            "    return is_supported(device_type)\n",
        ),
    ),
    "comfy.ldm.seedvr.model": (
        ("import torch\n", 1, f"import torch\n{DISABLE}"),
        ("@torch._dynamo.disable", 2, "@_disable_when_compiling"),
    ),
    # The cache of this function has room for 128 of the 385 folders below transformers/models, so
    # all their files are read three times.
    "transformers.utils.import_utils": (
        (
            "@lru_cache\ndef create_import_structure_from_path",
            1,
            "@lru_cache(maxsize=None)\ndef create_import_structure_from_path",
        ),
    ),
}


# inspect.getmodule() reads names with two underscores in every module. Only these load a module.
LOADING_NAMES = ("__all__", "__path__")


class DeferredModule(ModuleType):
    """A module that is loaded at the first use of a name that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        """Load the module, and return what the name stands for."""
        if name.startswith("__") and name not in LOADING_NAMES:
            raise AttributeError(name)
        loader = self.__loader__
        assert isinstance(loader, DeferringLoader)
        loader.load(self)
        return ModuleType.__getattribute__(self, name)


class DeferringLoader(importlib.machinery.SourceFileLoader):
    """Loads a module when it is used."""

    def __init__(self, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._lock = threading.RLock()
        self._is_loading = False

    def exec_module(self, module: ModuleType) -> None:
        """Make the module a deferred one.

        It has no path until it is loaded, so that the import of a submodule loads it first.
        """
        module.__dict__.pop("__path__", None)
        module.__class__ = DeferredModule

    def load(self, module: ModuleType) -> None:
        """Run the module's code, unless this or another thread has done so."""
        with self._lock:  # other threads wait until the module is complete
            if self._is_loading or type(module) is not DeferredModule:
                return
            self._is_loading = True
            spec = module.__spec__
            if spec is not None and spec.submodule_search_locations is not None:
                module.__path__ = spec.submodule_search_locations
            try:
                super().exec_module(module)
                module.__class__ = ModuleType  # type: ignore[assignment]
            finally:
                self._is_loading = False


class EditingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module with a changed source."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the changed source; a source that is not as expected is loaded unchanged."""
        source = self.get_data(self.path).decode("utf-8")
        for old, count, new in EDITS[fullname]:
            if source.count(old) != count:
                return super().get_code(fullname)
            source = source.replace(old, new)
        code: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return code


class DeferringFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of DEFERRED and EDITS, and gives them one of the loaders above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec with one of the loaders above."""
        if fullname not in DEFERRED and fullname not in EDITS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not importlib.machinery.SourceFileLoader:
            return spec
        if fullname in EDITS:
            spec.loader = EditingLoader(spec.loader.name, spec.loader.path)
        else:
            spec.loader = DeferringLoader(spec.loader.name, spec.loader.path)
        return spec


if os.environ.get("COMFY_WORKER_DEFER_IMPORTS") == "1":
    sys.meta_path.insert(0, DeferringFinder())
    gc.disable()
