"""What clients send: the schema of the input, and the translation of other workers' dialects into it."""
