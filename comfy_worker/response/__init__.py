"""Finds, encodes and delivers the outputs of a job, in the shape that its client asked for."""
