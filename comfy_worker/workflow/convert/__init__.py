"""Converts a workflow from the UI format to the API format."""
