"""The ports on real technology; one module per port and technology."""
