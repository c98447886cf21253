"""Paths, sources, downloads and more for all packages. Standard library only, except
for `container_memory`.
"""
