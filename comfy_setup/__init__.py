"""The command line: installs packages and ComfyUI, makes a first picture, runs the tests.

It uses only Python's standard library until its virtual environment is installed, and never imports
`comfy_worker`. This file and `__main__.py` must parse on any Python, however old.
"""
