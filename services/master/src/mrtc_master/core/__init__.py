"""The pure part: decisions from state and time."""
