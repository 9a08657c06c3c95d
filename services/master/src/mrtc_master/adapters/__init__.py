"""What the core needs of the world, on NATS."""
