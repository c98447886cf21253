"""The input of a job: its schema, and the translation of other workers' dialects into it."""
