"""What ties the recorder's core to NATS, the engine and storage."""
