"""Pure functions on an API-format workflow. No sockets, files or clocks."""
