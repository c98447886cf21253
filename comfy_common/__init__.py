"""Paths, sources, downloads and more for all packages.

Uses only the standard library, except for `container_memory`.
"""
