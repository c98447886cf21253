"""What ComfyUI's start leaves out, and that it is there when something uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from comfy_common.paths import CUSTOM_NODES

SCRIPT = CUSTOM_NODES / "comfy_worker_nodes" / "prestartup_script.py"
RUN = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r})\n"
# What the modules themselves import: there once one of them was loaded.
PARTS = ("scipy.integrate._bvp", "scipy.stats._stats_py", "torch._dynamo.utils", "sympy")
LOADED = f"print([name for name in {PARTS} if name in sys.modules])\n"
IMPORTS = """
import inspect
import scipy.signal, scipy.stats, torch, torch._dynamo, torch.distributed.tensor, torchvision
from scipy import integrate
inspect.getmodule(inspect.stack()[0].frame)  # it looks at every module
"""


def python(code: str, switch: str = "1") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN + textwrap.dedent(code)],
        env={**os.environ, "COMFY_WORKER_DEFER_IMPORTS": switch},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_load_nothing_until_use() -> None:
    use = """
    boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
    print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, (1, 1)).item())
    print(integrate.quad(lambda x: x, 0, 2)[0], round(scipy.stats.beta.ppf(0.5, 2, 2), 3))
    print(torch.distributed.tensor.DTensor.__name__, scipy.signal.firwin(3, 0.5).size)
    """
    output = python(IMPORTS + LOADED + textwrap.dedent(use))
    assert output.splitlines() == ["[]", "1.0", "2.0 0.5", "DTensor 3"]


def test_switch_keeps_the_imports() -> None:
    assert python(IMPORTS + LOADED, "0") == str(list(PARTS))


def test_garbage_waits_for_the_imports() -> None:
    code = "import gc; print(gc.isenabled())"
    assert [python(code), python(code, "0")] == ["False", "True"]


def test_submodule_loads_its_package_first() -> None:
    assert python("import torch._dynamo.utils; print(torch._dynamo.utils.counters)").endswith("{})")


def test_unknown_name_is_an_attribute_error() -> None:
    code = (
        "import scipy.stats; print(hasattr(scipy.stats, 'nothing'), hasattr(scipy.stats, 'beta'))"
    )
    assert python(code) == "False True"


def test_threads_get_the_complete_module() -> None:
    code = """
    import scipy.stats
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool:
        values = pool.map(lambda _: float(scipy.stats.norm.cdf(0)), range(8))
    print(set(values))
    """
    assert python(code) == "{0.5}"


def test_seedvr_method_works_before_and_in_compiling() -> None:
    code = """
    import torch
    namespace = {"torch": torch}
    edits = runpy.run_path(SCRIPT)["EDITS"]["comfy.ldm.seedvr.model"]
    exec(edits[0][2], namespace)
    class Rope:
        @namespace["_disable_when_compiling"]
        def get_freqs(self, value):
            return value + (1 if torch.compiler.is_compiling() else 2)
    rope = Rope()
    print(rope.get_freqs(1), "torch._dynamo.utils" in sys.modules)
    print(torch.compile(lambda x: x * rope.get_freqs(1), backend="eager")(torch.ones(1)).item())
    """
    assert python(f"SCRIPT = {str(SCRIPT)!r}\n" + textwrap.dedent(code)) == "3 False\n3.0"


def test_transformers_offers_the_same_classes() -> None:
    code = """
    import hashlib, transformers
    print(hashlib.sha256(repr(sorted(dir(transformers))).encode()).hexdigest())
    print(transformers.utils.import_utils.create_import_structure_from_path.cache_info().maxsize)
    """
    fast, slow = python(code).split(), python(code, "0").split()
    assert fast[0] == slow[0]
    assert (fast[1], slow[1]) == ("None", "128")
