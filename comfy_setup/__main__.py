"""Starts the command line, or says in one line that this Python is too old.

This file uses only syntax that an old Python can read. Otherwise Python would show a syntax error.
"""

import sys

OLDEST = (3, 10)


def complaint(version):
    # type: (tuple[int, ...]) -> str
    """Say what is wrong with a version of Python.

    Args:
        version: major and minor number.

    Returns:
        One line for the user; empty if the version is supported.
    """
    if tuple(version) >= OLDEST:
        return ""
    found = ".".join(str(number) for number in version)
    return (
        "comfy_setup needs Python 3.10 or newer and this is Python "
        + found
        + ": run it with a newer one, e.g. `python3.11 -m comfy_setup run`."
    )


if __name__ == "__main__":
    if complaint(sys.version_info[:2]):
        sys.stderr.write(complaint(sys.version_info[:2]) + "\n")
        sys.exit(1)
    from comfy_setup.cli import main

    sys.exit(main(sys.argv[1:]))
