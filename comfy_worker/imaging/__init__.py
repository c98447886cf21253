"""Decodes and encodes pictures in processes of their own, which can be ended at any moment.

A picture that a client sent can keep a decoder busy for hours, and take all memory. A thread in a C
library cannot be ended, a process can. So the modules ``decoder`` and ``encoder`` run in processes
that ``fork_server`` forks, and ``processes`` is the worker's side of them.
"""
