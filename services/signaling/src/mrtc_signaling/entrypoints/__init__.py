"""The doors: decode, call a use case, encode."""
