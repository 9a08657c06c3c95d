"""Alembic migrations of the app registry."""
