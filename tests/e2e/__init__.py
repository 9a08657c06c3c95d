"""Browsers in real calls."""
