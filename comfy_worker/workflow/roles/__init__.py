"""Finds the nodes that play a role: the sampler, the prompt, the size."""
