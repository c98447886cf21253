"""Pure functions on an API-format workflow: no sockets, no files, no clock in here."""
