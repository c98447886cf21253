"""The door: says so in one line if this Python is too old, else hands over to the command line.

This file keeps to syntax that an old Python can read, or it could not say its line.
"""

import sys

OLDEST = (3, 10)


def complaint(version):
    # type: (tuple[int, ...]) -> str
    """Say what is wrong with a Python of this version.

    Args:
        version: major and minor number.

    Returns:
        One line for the user, empty if the version will do.
    """
    if tuple(version) >= OLDEST:
        return ""
    found = ".".join(str(number) for number in version)
    return (
        "comfy_setup needs Python 3.10 or newer and this is Python "
        + found
        + ": call it with a newer one, e.g. `python3.11 -m comfy_setup run`."
    )


if __name__ == "__main__":
    if complaint(sys.version_info[:2]):
        sys.stderr.write(complaint(sys.version_info[:2]) + "\n")
        sys.exit(1)
    from comfy_setup.cli import main

    sys.exit(main(sys.argv[1:]))
