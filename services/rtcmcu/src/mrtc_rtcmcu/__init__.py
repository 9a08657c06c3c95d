"""Receives, forwards and processes media: one engine node."""
