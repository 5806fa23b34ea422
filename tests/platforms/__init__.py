"""Local stand-ins of chat platforms, with the limits that the real ones enforce."""
