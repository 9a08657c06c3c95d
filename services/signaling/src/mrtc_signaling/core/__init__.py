"""What signaling knows, pure and synchronous: no I/O, no clock of its own."""
