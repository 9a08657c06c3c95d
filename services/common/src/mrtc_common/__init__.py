"""What every service shares. It knows no service; services know each other only through protos and this package."""

__version__ = "0.1.0"
