"""Findings that ComfyUI's own validation cannot give."""
