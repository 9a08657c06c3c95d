"""The use cases: they await the ports and let the core decide."""
