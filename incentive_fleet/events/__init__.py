"""What happened: the wire models of events, their codec, digest and schemas. Imports nothing of ours but errors."""
