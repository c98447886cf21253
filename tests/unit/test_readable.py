"""What a node may read: its job's own files and what every program shares, and nothing else of the machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from comfy_common.paths import REPO

PACK = REPO / "comfy_worker" / "comfyui" / "custom_nodes" / "comfy_worker_nodes"
OWN, OTHER = "a" * 32, "b" * 32


def load(name: str) -> ModuleType:
    """A module of our node pack, without ComfyUI."""
    spec = importlib.util.spec_from_file_location(f"guarded.{name}", PACK / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


readable = load("readable")
sys.modules["guarded"] = ModuleType("guarded")
sys.modules["guarded.readable"] = readable
other_clients = load("other_clients")
sys.modules["guarded.other_clients"] = other_clients
path_guard = load("path_guard")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with two jobs, models, a pack and somebody's files."""
    for file in (
        f"run/input/{OWN}/a.png",
        f"run/input/{OTHER}/a.png",
        f"run/output/{OTHER}/a.png",
        "run/input/shared.png",
        "models/loras/a.safetensors",
        "packs/a/fonts/a.ttf",
        "comfyui/nodes.py",
        "comfyui/output/old.png",
        "home/photo.png",
    ):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file, encoding="utf-8")
    (tmp_path / "models/loras/linked.safetensors").symlink_to(tmp_path / "home/photo.png")
    return tmp_path


def rule(machine: Path) -> Any:
    return readable.Readable(
        (str(machine / "run/input"), str(machine / "run/output")),
        (
            str(machine / "models"),
            str(machine / "packs"),
            str(machine / "comfyui"),
            "/usr",
            "/proc",
            "/dev",
        ),
        (str(machine / "comfyui/output"), "/dev/shm"),
        own=frozenset({OWN}),
    )


ALLOWED = [
    f"run/input/{OWN}/a.png",
    f"run/input/{OTHER}/../{OWN}/a.png",
    "run/input/shared.png",
    "models/loras/a.safetensors",
    "models/loras/linked.safetensors",
    "packs/a/fonts/a.ttf",
    "comfyui/nodes.py",
    "/usr/share/fonts/a.ttf",
    "/proc/meminfo",
    f"/proc/{os.getpid()}/environ",
    "/proc/1/stat",
    "/dev/null",
]
REFUSED = [
    f"run/input/{OTHER}/a.png",
    f"run/output/{OTHER}/a.png",
    f"run/input/{OWN}/../{OTHER}/a.png",
    f"packs/../run/output/{OTHER}/a.png",
    "comfyui/output/old.png",
    "home/photo.png",
    "models/../home/photo.png",
    "models/loras/../../home/photo.png",
    "/etc/shadow",
    "/etc/rp_environment",
    "/root/.ssh/id_rsa",
    "/proc/1/environ",
    "/proc/1/root/etc/shadow",
    "/proc/1/cwd/x",
    "/proc/self/root/etc/shadow",
    f"/proc/{os.getpid()}/root/etc/shadow",
    "/proc/thread-self/root/root/x",
    "/dev/../etc/shadow",
    "/dev/shm/comfy_worker-x/a.png",
]


@pytest.mark.parametrize("path", ALLOWED)
def test_what_a_job_needs_is_readable(machine: Path, path: str) -> None:
    assert rule(machine).allows(str(machine / path))


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_not_its_own_is_not(machine: Path, path: str) -> None:
    assert not rule(machine).allows(os.path.join(machine, path))  # noqa: PTH118 - the dots must stay


def test_what_nodes_made_is_readable(machine: Path) -> None:
    found = rule(machine)
    made, there = machine / "home/made/x.txt", machine / "home/photo.png"
    found.note_created(str(made.parent))
    found.note_created(str(there))
    assert found.allows(str(made))
    assert not found.allows(str(there)), "a file that was there before stays closed"


def test_the_whole_disk_is_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/", os.path.expanduser("~"), "/usr/x"])  # noqa: PTH111
    roots = readable.system_roots({"HF_HOME": "/", "TORCH_HOME": "/data/torch"})
    assert {"/usr/x", "/data/torch"} <= set(roots)
    assert "/" not in roots
    assert os.path.expanduser("~") not in roots  # noqa: PTH111


# Run in a process of its own, since an audit hook stays for as long as the process does.
SCRIPT = """
import os, sys, threading
sys.path[:0] = [{tests!r}, {repo!r}]
from tests.unit.test_readable import OWN, path_guard, rule
from pathlib import Path
guard = path_guard.PathGuard(rule(Path({machine!r})), path_guard.other_clients)
path_guard._filter_listings(guard)
path_guard._guard_threads(guard)
sys.addaudithook(guard.on_audit_event)
def tried(what):
    try:
        return repr(what())
    except PermissionError as error:
        return "refused: " + str(error)
os.chdir({machine!r})
with guard.applied(frozenset({{OWN}})):
    print({code})
"""


def guarded(machine: Path, code: str) -> str:
    script = SCRIPT.format(
        tests=str(REPO / "tests"), repo=str(REPO), machine=str(machine), code=code
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "tried(lambda: open('home/photo.png').read())",
        "tried(lambda: Path('home/photo.png').read_bytes())",
        "tried(lambda: os.open('home/photo.png', os.O_RDONLY))",
        "tried(lambda: open('home/photo.png', 'r+'))",
        f"tried(lambda: open('run/input/{OTHER}/a.png', 'w'))",
        "tried(lambda: os.listdir('home'))",
        "tried(lambda: list(os.walk('home', onerror=lambda e: (_ for _ in ()).throw(e))))",
        "tried(lambda: list(Path('home').iterdir()))",
        f"tried(lambda: os.listdir('run/input/{OTHER}'))",
        "tried(lambda: os.rename('home/photo.png', 'run/input/x.png'))",
        "tried(lambda: os.symlink('/etc/shadow', 'run/input/x.png'))",
        "tried(lambda: os.symlink('../../../../../../home/photo.png', 'run/input/x.png'))",
        "tried(lambda: os.link('home/photo.png', 'run/input/x.png'))",
        f"tried(lambda: os.rename('models/loras/a.safetensors', 'run/input/{OTHER}/a.png'))",
        "tried(lambda: __import__('subprocess').run(['cat', 'home/photo.png']))",
        "tried(lambda: __import__('sqlite3').connect('home/photo.png'))",
    ],
)
def test_reads_of_others_files_fail(machine: Path, code: str) -> None:
    assert "is not for this job" in guarded(machine, code)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (f"tried(lambda: open('run/input/{OWN}/a.png').read())", f"'run/input/{OWN}/a.png'"),
        ("tried(lambda: sorted(os.listdir('run/input')))", str([OWN, "shared.png"])),
        (
            "tried(lambda: sorted(e.name for e in os.scandir('run/input')))",
            str([OWN, "shared.png"]),
        ),
        (
            "tried(lambda: sorted(n for _, d, f in os.walk('run/input') for n in d + f))",
            str(["a.png", OWN, "shared.png"]),
        ),
        (
            "tried(lambda: open('home/new.txt', 'w').write('x') and open('home/new.txt').read())",
            "'x'",
        ),
        ("tried(lambda: __import__('subprocess').run(['true']).returncode)", "0"),
        ("tried(lambda: os.symlink('a.safetensors', 'models/loras/b.safetensors'))", "None"),
        ("tried(lambda: os.symlink('../../run/input/shared.png', 'packs/a/x'))", "None"),
        (
            "tried(lambda: [os.rename('models/loras/a.safetensors', 'home/b'), open('home/b').read()][1])",
            "'models",
        ),
        ("tried(lambda: __import__('tempfile'))", "<module"),
    ],
)
def test_own_files_stay_open(machine: Path, code: str, expected: str) -> None:
    assert guarded(machine, code).startswith(expected)


def test_missing_files_are_told_as_missing(machine: Path) -> None:
    with pytest.raises(AssertionError, match="FileNotFoundError"):
        guarded(machine, "open('home/none.png')")


def test_threads_of_a_node_are_guarded(machine: Path) -> None:
    read = "lambda: said.append(tried(lambda: open('home/photo.png')))"
    code = (
        f"[said := [], thread := threading.Thread(target={read}), thread.start(), thread.join()][0]"
    )
    assert "is not for this job" in guarded(machine, code)


def test_other_threads_are_not(machine: Path) -> None:
    guard = path_guard.PathGuard(rule(machine), other_clients.OtherClients())
    seen: list[bool] = []

    def look() -> None:
        seen.append(guard.is_on)

    with guard.applied(frozenset({OWN})):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert guard.is_on
    assert seen == [False]
    assert not guard.is_on


# ComfyUI's routes run on the main thread; a prompt without folders is another client's.
OTHERS_SCRIPT = """
import os, subprocess, sys, threading
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, {repo!r})
from tests.unit.test_readable import OWN, path_guard, rule
from pathlib import Path
guard = path_guard.PathGuard(rule(Path({machine!r})), path_guard.other_clients)
path_guard._guard_threads(guard)
sys.addaudithook(guard.on_audit_event)
def write(name):
    Path({machine!r}, "run", name).write_text("x")
def on_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()
def prompt(folders, name):
    with guard.applied(frozenset(folders)):
        write(f"output/{{name}}.png")
        on_thread(write, f"output/{{name}}-thread.png")
        subprocess.run(["touch", {machine!r} + f"/run/output/{{name}}-program.mp4"], check=True)
        pool.submit(write, f"output/{{name}}-pool.png").result()
        os.mkdir({machine!r} + f"/run/output/{{name}}")
        os.rename({machine!r} + f"/run/output/{{name}}", {machine!r} + f"/run/output/{{name}}-new")
    write(f"output/{{name}}-late.png")
write("input/upload.png")
write("input/overwritten.png")
write("input/removed.png")
write("elsewhere.png")
write("input/" + OWN + "/of_job.png")
open({machine!r} + "/run/input/shared.png").close()
os.mkdir({machine!r} + "/run/input/3d")
os.chdir({machine!r} + "/run")
os.symlink({machine!r} + "/run/input", {machine!r} + "/link")
write("../link/linked.png")
open(b"input/bytes.png", "w").close()
os.close(os.open("elsewhere.png", os.O_RDWR))
os.replace("elsewhere.png", "input/moved.png")
pool = ThreadPoolExecutor(1)
on_thread(prompt, [], "other")
on_thread(prompt, [OWN], "job")
def of_job():
    with guard.applied(frozenset([OWN])):
        write("input/3d/job.glb")
        write("input/overwritten.png")
        threads.append(threading.Thread(target=late))
        threads[0].start()
def late():
    begun.wait()
    write("output/late.png")
    os.replace("output/late.png", "output/later.png")
def of_other():
    with guard.applied(frozenset()):
        begun.set()
        threads[0].join()
        running.extend(names())
        write("output/after.png")
def names():
    return sorted(map(os.path.basename, path_guard.other_clients.paths()))
threads, running, begun = [], [], threading.Event()
on_thread(of_job)
on_thread(of_other)
os.remove({machine!r} + "/run/input/removed.png")
assert set(names()) - set(running) == {{"after.png"}}, (names(), running)
print(names())
"""


def test_files_of_other_clients_are_noted(machine: Path) -> None:
    script = OTHERS_SCRIPT.format(repo=str(REPO), machine=str(machine))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    expected = [
        "3d",
        "after.png",
        "bytes.png",
        "linked.png",
        "moved.png",
        "other-new",
        "other-pool.png",
        "other-program.mp4",
        "other-thread.png",
        "other.png",
        "upload.png",
    ]
    assert done.stdout.strip() == str(expected)


def test_files_that_libraries_write_are_noted(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModuleType("av")
    vars(library)["open"] = lambda path, mode: Path(path).write_text(mode, encoding="utf-8")
    monkeypatch.setitem(sys.modules, "av", library)
    others = other_clients.OtherClients()
    guard = path_guard.PathGuard(rule(machine), others)
    path_guard._guard_openers(guard)
    for folders, name in (([OWN], "job.mp4"), ([], "other.mp4")):
        with guard.applied(frozenset(folders)):
            vars(library)["open"](str(machine / "run/output" / name), "w")
    assert others.paths() == [str(machine / "run/output/other.mp4")]


def test_openers_of_libraries_are_wrapped_once(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    library = ModuleType("cv2")
    imread: Callable[..., Any] = opened.append
    vars(library)["imread"] = imread
    monkeypatch.setitem(sys.modules, "cv2", library)
    for name in ("av", "soundfile", "torchaudio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    guard = path_guard.PathGuard(rule(machine), other_clients.OtherClients())
    for _ in range(2):
        path_guard._guard_openers(guard)
    own, private = machine / f"run/input/{OWN}/a.png", machine / "home/photo.png"
    with guard.applied(frozenset({OWN})):
        vars(library)["imread"](str(own))
        vars(library)["imread"]("https://example.com/a.png")
        for path in (
            private,
            f"file:{private}",
            f"concat:{own}|{private}",
            f"subfile,,start,0,end,9,,:{private}",
        ):
            with pytest.raises(PermissionError, match=r"is not for this job.*aaaa"):
                vars(library)["imread"](path)
    assert opened == [str(own), "https://example.com/a.png"]
