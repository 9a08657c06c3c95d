"""What the core needs of the world."""
