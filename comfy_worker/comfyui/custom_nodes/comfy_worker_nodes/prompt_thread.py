"""A ComfyUI whose prompt thread has died ends, since it would take prompts and never run one.

``SystemExit`` in a node, and any other exception that is no ``Exception``, passes through ComfyUI's own handling
and ends the thread; of ``SystemExit`` Python does not even tell.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback

__all__ = ["EXIT_STATUS", "end_with_prompt_thread"]

EXIT_STATUS = 70  # sysexits.h: an error inside the software


def end_with_prompt_thread() -> None:
    """Have ComfyUI end with the traceback when its prompt thread does."""
    before = threading.excepthook

    def on_exception(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or "prompt_worker" not in args.thread.name:
            before(args)
            return
        traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
        sys.stderr.flush()
        os._exit(EXIT_STATUS)

    threading.excepthook = on_exception
