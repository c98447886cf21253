"""Gets a machine ready for the worker: packages, ComfyUI, a first picture, the tests.

It needs nothing but Python's standard library until its virtual environment stands, and knows nothing of
`comfy_worker`.  This file and `__main__.py` must parse on any Python, however old.
"""
