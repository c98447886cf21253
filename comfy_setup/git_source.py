"""Fetches one version out of a Git repository: a tag, a branch, a commit or the latest release."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from comfy_common import offline
from comfy_common.comfyui_version import parse_version
from comfy_common.console import Step
from comfy_common.errors import SetupError
from comfy_setup.child import Runner, Unreachable
from comfy_setup.network import proxy_for, why_unreachable

LATEST = "latest"
COMMIT = re.compile(r"[0-9a-f]{40}")
ABBREVIATED_COMMIT = re.compile(r"[0-9a-f]{7,39}")
RELEASE = re.compile(r"refs/tags/v?\d+(\.\d+)+")
SETTINGS = {
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    # A transfer that stands still for that many seconds has failed.
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "30",
}
NO_SUCH_COMMIT = re.compile(r"not our ref|unadvertised object|[Cc]ouldn't find remote ref|unknown revision")


@dataclass(frozen=True)
class Revision:
    """A version that a repository has.

    Args:
        ref: what Git is asked for: `refs/tags/...`, `refs/heads/...` or a commit.
        commit: all 40 digits.
        moves: whether the same words may mean another commit tomorrow.
    """

    ref: str
    commit: str
    moves: bool = False


@dataclass(frozen=True)
class Repository:
    """A Git repository somewhere else, or on this machine's disk.

    Args:
        url: anything that Git takes.
        runner: runs Git.
        step: shows how far it is.
    """

    url: str
    runner: Runner
    step: Step

    def find(self, version: str, scratch: Path) -> Revision:
        """Look a version up.

        Args:
            version: a tag (its leading v may be left away or added), a branch, a commit in full or abbreviated to
                seven digits or more, or `latest`.
            scratch: a folder that is not there yet; used where only the whole history tells.

        Raises:
            SetupError: the repository has no such version.
        """
        refs = self._refs()
        if version == LATEST:
            releases = [ref for ref in refs if RELEASE.fullmatch(ref)]
            if not releases:
                raise SetupError(f"{self.url} has no tags of versions: name a branch or a commit")
            ref = max(releases, key=lambda name: parse_version(name.removeprefix("refs/tags/")))
            return Revision(ref, refs[ref], moves=True)
        other = version.removeprefix("v") if version.startswith("v") else f"v{version}"
        for ref in (f"refs/tags/{version}", f"refs/tags/{other}", f"refs/heads/{version}"):
            if ref in refs:
                return Revision(ref, refs[ref], moves=ref.startswith("refs/heads/"))
        if COMMIT.fullmatch(version.lower()):
            return Revision(version.lower(), version.lower())
        if ABBREVIATED_COMMIT.fullmatch(version.lower()):
            commit = self._full_commit(version.lower(), scratch)
            return Revision(commit, commit)
        raise self._has_no(version, refs)

    def fetch(self, revision: Revision, folder: Path) -> str:
        """Put the files of a version into a folder, without the history.

        Args:
            revision: what :meth:`find` found.
            folder: it is made.

        Returns:
            The commit, all 40 digits.

        Raises:
            SetupError: it failed; one line says why.
        """
        folder.mkdir(parents=True)
        self._git(["-C", folder, "init", "--quiet"])
        fetch = ["fetch", "--progress", "--no-tags", "--depth", "1", "--", self.url, revision.ref]
        try:
            self._git(["-C", folder, *fetch])
        except SetupError as error:
            if NO_SUCH_COMMIT.search(str(error)):
                raise self._has_no(revision.ref, {}) from error
            raise
        self._git(["-C", folder, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD"])
        return self._git(["-C", folder, "rev-parse", "HEAD"])[-1]

    def _refs(self) -> dict[str, str]:
        """List the tags and branches with their commits."""
        refs: dict[str, str] = {}
        for line in self._git(["ls-remote", "--tags", "--heads", "--", self.url]):
            # Of a tag with a message `NAME^{}` is the commit, and comes after NAME.
            if match := re.fullmatch(r"([0-9a-f]{40})\t(refs/\S+?)(\^\{\})?", line):
                refs[match[2]] = match[1]
        return refs

    def _full_commit(self, abbreviated: str, scratch: Path) -> str:
        """Find the commit that begins so, in the history without its files."""
        self._git(["init", "--quiet", "--bare", scratch])
        what = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        self._git(["-C", scratch, "fetch", "--progress", "--filter=tree:0", "--", self.url, *what])
        try:
            return self._git(["-C", scratch, "rev-parse", "--verify", f"{abbreviated}^{{commit}}"])[-1]
        except SetupError as error:
            raise self._has_no(abbreviated, {}) from error

    def _has_no(self, version: str, refs: Mapping[str, str]) -> SetupError:
        releases = [ref.removeprefix("refs/tags/") for ref in refs if RELEASE.fullmatch(ref)]
        newest = max(releases, key=parse_version, default="")
        hint = f"; its newest version is {newest}" if newest else ""
        return SetupError(f"{self.url} has no tag, branch or commit {version}: name one that it has{hint}")

    def _git(self, arguments: Sequence[str | Path]) -> list[str]:
        lines: list[str] = []

        def read(line: str) -> None:
            lines.append(line)
            if match := re.match(r"Receiving objects: +(\d+)%", line):
                self.step.progress(f"{match[1]} % of the objects", int(match[1]) / 100)

        self.runner.run(self.step, ["git", *arguments], read, SETTINGS)
        return lines


def check_repository(url: str, environ: Mapping[str, str]) -> None:
    """Make sure that Git is there and that a repository's server answers.

    Args:
        url: the repository's.
        environ: Git's environment.

    Raises:
        SetupError: there is no Git.
        Unreachable: the server does not answer.
    """
    if not has_git(environ):
        raise SetupError("git is missing: install it (Debian and Ubuntu: `apt install git`) and call again")
    # Git's own setting comes before the environment's.
    asked = ["git", "config", "--get-urlmatch", "http.proxy", url]
    configured = subprocess.run(asked, env=dict(environ), capture_output=True, text=True).stdout.strip()
    if reason := why_unreachable(url, configured or proxy_for(url, environ)):
        what = offline.advice(urlsplit(url).hostname or "", environ)
        raise Unreachable(f"{url} cannot be reached: {reason}; {what}")


def has_git(environ: Mapping[str, str]) -> bool:
    """Tell whether Git is installed.

    Args:
        environ: its PATH is searched.
    """
    return shutil.which("git", path=environ.get("PATH")) is not None
