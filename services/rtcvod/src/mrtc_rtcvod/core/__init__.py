"""Decisions of the player: pure, synchronous, tested in virtual time."""
