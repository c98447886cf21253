"""Edits a workflow: parameters, LoRAs, ControlNets, overrides, clip skip, input files."""
