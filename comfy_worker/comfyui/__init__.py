"""The neighbour: a ComfyUI of our own, started, spoken to and ended. Knows no jobs."""
