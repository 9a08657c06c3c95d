"""A transport moves between two engines while its client keeps DTLS and SRTP; see `__main__`."""
