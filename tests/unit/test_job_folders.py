"""A job's folders end with it, and so does what its nodes wrote elsewhere; those of others stay."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from comfy_worker.comfyui import workdirs as job_folders
from comfy_worker.comfyui.workdirs import JobFolders


@pytest.fixture(autouse=True)
def sharp_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_folders, "CLOCK_S", 0.0)


def write(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    time.sleep(0.05)  # the file system's clock ticks a few times a second at worst
    return path


def test_a_job_removes_its_files_and_strays(tmp_path: Path) -> None:
    folders = JobFolders()
    with folders.opened([tmp_path]) as first:
        early = write(tmp_path / "early" / "stray.png")
        link = tmp_path / "link"
        link.symlink_to(early)
        time.sleep(0.05)
        with folders.opened([tmp_path]) as second:
            assert not folders.are_alone
            files = [write(tmp_path / name / "x.png") for name in (first, second)]
            late = write(tmp_path / "late.png")
            mixed = [write(tmp_path / "early" / "new.png"), early]
        assert folders.are_alone
        assert [file.exists() for file in files] == [True, False]
        assert late.exists()
        assert all(file.exists() for file in mixed), "it may be the first job's"
        assert link.is_symlink()
    assert list(tmp_path.iterdir()) == []


def test_strays_go_while_other_jobs_run(tmp_path: Path) -> None:
    folders = JobFolders()
    with folders.opened([tmp_path]):
        stray = write(tmp_path / "stray.png")
        with folders.opened([tmp_path]):
            pass
        assert stray.exists(), "the first job may have written it"
        running = folders.opened([tmp_path])
        running.__enter__()
    assert not stray.exists(), "no job that runs can have written it"
    running.__exit__(None, None, None)


def test_files_of_other_clients_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with JobFolders().opened([link], lambda: [str(real / "theirs" / "a.png")]):
        theirs = write(real / "theirs" / "a.png")
        stray = write(real / "stray.png")
    assert theirs.exists()
    assert not stray.exists()


def test_strays_beside_files_of_others_go(tmp_path: Path) -> None:
    theirs, folder = tmp_path / "shared" / "theirs.png", tmp_path / "shared" / "empty"
    calls: list[bool] = []

    def others() -> list[str]:
        calls.append(True)
        return [str(theirs), str(folder)]

    folders = JobFolders()
    with folders.opened([tmp_path], others):
        write(theirs)
        stray = write(tmp_path / "shared" / "stray.png")
        deep = write(folder / "stray.png")
        running = folders.opened([tmp_path], others)
        running.__enter__()
        new = write(tmp_path / "shared" / "new.png")
    assert not stray.exists()
    assert not deep.exists()
    assert theirs.exists()
    assert folder.is_dir()
    assert new.exists(), "it may be the other job's"
    running.__exit__(None, None, None)
    assert not new.exists()


def test_nobody_is_asked_twice_for_files_of_others(tmp_path: Path) -> None:
    calls: list[bool] = []

    def others() -> list[str]:
        calls.append(True)
        return [str(theirs)]

    theirs = write(tmp_path / "theirs" / "a.png")
    folders = JobFolders()
    for _ in range(3):
        with folders.opened([tmp_path], others):
            pass
    assert len(calls) == 1
    with folders.opened([tmp_path], others):
        stray = write(theirs.with_name("stray.png"))
    assert not stray.exists()
    assert theirs.exists()


def test_files_stay_while_nobody_knows_whose_they_are(tmp_path: Path) -> None:
    theirs, stray = tmp_path / "theirs.png", tmp_path / "stray.png"
    folders = JobFolders()
    with folders.opened([tmp_path], lambda: None):
        write(theirs)
        write(stray)
    assert theirs.exists()
    with folders.opened([tmp_path], lambda: [str(theirs)]):
        pass
    assert theirs.exists()
    assert not stray.exists()


def test_nobody_is_asked_where_nothing_was_left(tmp_path: Path) -> None:
    with JobFolders().opened([tmp_path], lambda: pytest.fail("calls")) as name:
        write(tmp_path / name / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_loses_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(_path: Path) -> None:
        raise PermissionError

    with JobFolders().opened([tmp_path]):
        write(tmp_path / "stray.png")
        monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.undo()
    assert (tmp_path / "stray.png").exists()


def test_a_slow_removal_holds_up_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = JobFolders()
    removing, go_on = threading.Event(), threading.Event()
    remove = job_folders._remove

    def slow_remove(path: Path) -> None:
        removing.set()
        assert go_on.wait(30)
        remove(path)

    monkeypatch.setattr(job_folders, "_remove", slow_remove)

    def run_job() -> None:
        with folders.opened([tmp_path]) as name:
            write(tmp_path / name / "x.png")

    ending = threading.Thread(target=run_job)
    ending.start()
    try:
        assert removing.wait(30)
        with folders.opened([tmp_path]) as name:
            ours = write(tmp_path / name / "x.png")
            go_on.set()
            ending.join()
            assert ours.exists()
    finally:
        go_on.set()
        ending.join()
    assert list(tmp_path.iterdir()) == []


def test_a_stray_folder_goes_while_a_job_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = JobFolders()
    changed = job_folders._changed
    later = folders.opened([tmp_path])

    def begin_meanwhile(path: Path) -> float:
        found = changed(path)
        monkeypatch.setattr(job_folders, "_changed", changed)
        later.__enter__()
        write(path / "of the new job.png")
        return found

    with folders.opened([tmp_path]):
        write(tmp_path / "shared" / "old.png")
        monkeypatch.setattr(job_folders, "_changed", begin_meanwhile)
    assert (tmp_path / "shared" / "of the new job.png").exists()
    later.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []
