"""What a workflow left behind: found, read, and made ready to be sent. Knows nothing of graphs or sockets."""
