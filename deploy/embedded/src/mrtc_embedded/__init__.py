"""Runs nats-server and the five services as real processes on one machine; used by `make run` and by the tests."""
