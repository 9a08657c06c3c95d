"""The media engine: see `AsyncEngine`."""
