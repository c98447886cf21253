"""Finds the outputs of a job, encodes them and delivers them, in the shape that the client asked for."""
