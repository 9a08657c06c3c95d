"""What ties the player's core to NATS, the engine and the playing process."""
