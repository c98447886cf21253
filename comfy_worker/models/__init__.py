"""Model files: families, names and aliases, downloads, the cache, and where files are."""
