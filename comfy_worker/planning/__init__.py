"""Turns a request and a template into a workflow that is ready to queue."""
