"""Downloads one version from a Git repository: a tag, a branch, a commit or the latest release."""

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
    # A transfer that stalls for that many seconds has failed.
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "30",
}
NO_SUCH_COMMIT = re.compile(
    r"not our ref|unadvertised object|[Cc]ouldn't find remote ref|unknown revision"
)
GIT_IS_MISSING = (
    "git is missing: install it (Debian and Ubuntu: `apt install git`) and run this again"
)


@dataclass(frozen=True)
class Revision:
    """A version of a repository.

    Args:
        ref: what Git fetches: `refs/tags/...`, `refs/heads/...` or a commit.
        commit: all 40 digits.
        moves: whether the same name may mean another commit tomorrow.
    """

    ref: str
    commit: str
    moves: bool = False


@dataclass(frozen=True)
class Repository:
    """A Git repository on a server, or on this machine's disk.

    Args:
        url: any URL that Git supports.
        runner: runs Git.
        step: shows the progress.
    """

    url: str
    runner: Runner
    step: Step

    def find(self, version: str, scratch: Path) -> Revision:
        """Look a version up.

        Args:
            version: a tag (with or without a leading v), a branch, a commit in full or abbreviated
                to at least seven digits, or `latest`.
            scratch: a folder that does not exist yet; used for the history of the repository.

        Raises:
            SetupError: the repository has no such version.
        """
        refs = self._refs()
        if version == LATEST:
            return self._latest(refs)
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

    def newest_commit(self) -> str:
        """Return the newest commit of the default branch, all 40 digits.

        Raises:
            SetupError: the repository cannot be read, or has no commits.
        """
        for line in self._git(["ls-remote", "--", self.url, "HEAD"]):
            if match := re.fullmatch(r"([0-9a-f]{40})\tHEAD", line):
                return match[1]
        raise SetupError(f"{self.url} has no commits")

    def _latest(self, refs: Mapping[str, str]) -> Revision:
        releases = [ref for ref in refs if RELEASE.fullmatch(ref)]
        if not releases:
            raise SetupError(f"{self.url} has no tags of versions: name a branch or a commit")
        ref = max(releases, key=lambda name: parse_version(name.removeprefix("refs/tags/")))
        return Revision(ref, refs[ref], moves=True)

    def fetch(self, revision: Revision, folder: Path) -> str:
        """Put the files of a version into a folder, without the history.

        Args:
            revision: the result of :meth:`find`.
            folder: created here.

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
        self._git(
            ["-C", folder, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD"]
        )
        return self._git(["-C", folder, "rev-parse", "HEAD"])[-1]

    def _refs(self) -> dict[str, str]:
        """List the tags and branches with their commits."""
        refs: dict[str, str] = {}
        for line in self._git(["ls-remote", "--tags", "--heads", "--", self.url]):
            # For a tag with a message, `NAME^{}` is the commit, and follows NAME.
            if match := re.fullmatch(r"([0-9a-f]{40})\t(refs/\S+?)(\^\{\})?", line):
                refs[match[2]] = match[1]
        return refs

    def _full_commit(self, abbreviated: str, scratch: Path) -> str:
        """Find a commit by its first digits, in the history without files."""
        self._git(["init", "--quiet", "--bare", scratch])
        refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        self._git(["-C", scratch, "fetch", "--progress", "--filter=tree:0", "--", self.url, *refs])
        try:
            return self._git(["-C", scratch, "rev-parse", "--verify", f"{abbreviated}^{{commit}}"])[
                -1
            ]
        except SetupError as error:
            raise self._has_no(abbreviated, {}) from error

    def _has_no(self, version: str, refs: Mapping[str, str]) -> SetupError:
        releases = [ref.removeprefix("refs/tags/") for ref in refs if RELEASE.fullmatch(ref)]
        newest = max(releases, key=parse_version, default="")
        hint = f"; its newest version is {newest}" if newest else ""
        return SetupError(
            f"{self.url} has no tag, branch or commit {version}: name an existing one{hint}"
        )

    def _git(self, arguments: Sequence[str | Path]) -> list[str]:
        lines: list[str] = []

        def read(line: str) -> None:
            lines.append(line)
            if match := re.match(r"Receiving objects: +(\d+)%", line):
                self.step.progress(f"{match[1]} % of the objects", int(match[1]) / 100)

        self.runner.run(self.step, ["git", *arguments], read, SETTINGS)
        return lines


def check_repository(url: str, environ: Mapping[str, str]) -> None:
    """Make sure that Git is installed and that a repository's server answers.

    Args:
        url: the repository's URL.
        environ: Git's environment.

    Raises:
        SetupError: Git is not installed.
        Unreachable: the server does not answer.
    """
    if not has_git(environ):
        raise SetupError(GIT_IS_MISSING)
    # Git's own setting takes precedence over the environment.
    command = ["git", "config", "--get-urlmatch", "http.proxy", url]
    finished = subprocess.run(command, env=dict(environ), capture_output=True, text=True)
    if reason := why_unreachable(url, finished.stdout.strip() or proxy_for(url, environ)):
        advice = offline.advice(urlsplit(url).hostname or "", environ)
        raise Unreachable(f"{url} cannot be reached: {reason}; {advice}")


def has_git(environ: Mapping[str, str]) -> bool:
    """Whether Git is installed.

    Args:
        environ: its PATH is searched.
    """
    return shutil.which("git", path=environ.get("PATH")) is not None
