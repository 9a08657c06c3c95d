"""Client connections, rooms and their life cycle, WHIP, WHEP and the REST API."""

__version__ = "0.1.0"
