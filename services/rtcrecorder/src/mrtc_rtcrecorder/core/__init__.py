"""Decisions of the recorder: pure, synchronous, tested in virtual time."""
