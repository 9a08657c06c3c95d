"""What the tests above unit level share."""
