"""Every stream and bucket of the suite, with its limits and the reason for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nats.js import api

from . import subjects
from .errors import BadRequestError

NODE_TTL_S = 10.0
"""A node whose heartbeat is older is dead."""

LEASE_TTL_S = 10.0
"""A lease that is not renewed for so long is free."""

DELETE_MARKER_TTL_S = 60
"""How long the marker of a deleted key stays, so that watchers that were away for a moment see the reason."""

RECORDING_MAX_BYTES = 960 * 1024
"""Largest record of a recording, some 7,000 files; NATS takes messages of 1 MiB, headers included."""

EVENTS_MAX_AGE_S = 48 * 3600.0
"""How long what happened waits for whoever tells apps of it."""

_EXPIRY_MARKER_TTL_S = 30.0
# Each signaling instance has some for each of its rooms; nats-server 2.15 allows a stream that says nothing a thousand.
_MAX_CONSUMERS = 1_000_000
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SchemaOptions:
    """What the deployment decides."""

    replicas: int = 1
    session_grace_s: float = 30.0


def all_streams(options: SchemaOptions) -> list[api.StreamConfig]:
    """The configuration of every stream, buckets included."""
    return [replace(config, max_consumers=_MAX_CONSUMERS) for config in _streams(options)]


def _streams(options: SchemaOptions) -> list[api.StreamConfig]:
    return [
        # Registry and leases are worth nothing after a restart of NATS: memory, no disk writes for heartbeats.
        _bucket(subjects.BUCKET_NODES, options, ttl_s=NODE_TTL_S, storage=api.StorageType.MEMORY),
        _bucket(subjects.BUCKET_LEASES, options, ttl_s=LEASE_TTL_S, storage=api.StorageType.MEMORY),
        _bucket(subjects.BUCKET_DRAINS, options, ttl_s=24 * 3600.0),
        _bucket(subjects.BUCKET_ROOMS, options, max_bytes=512 * _MIB),
        _bucket(subjects.BUCKET_SESSIONS, options, ttl_s=options.session_grace_s),
        _bucket(subjects.BUCKET_RECORDINGS, options, max_bytes=128 * _MIB, max_value=RECORDING_MAX_BYTES),
        _bucket(subjects.BUCKET_VODS, options, max_bytes=128 * _MIB),
        api.StreamConfig(
            name=subjects.STREAM_MESSAGES,
            subjects=[subjects.MESSAGES_WILDCARD],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            num_replicas=options.replicas,
            max_age=600.0,
            max_bytes=256 * _MIB,
            # One room that floods loses its own old messages, not the others'.
            max_msgs_per_subject=10_000,
            max_msg_size=80 * 1024,
            discard=api.DiscardPolicy.OLD,
            duplicate_window=120.0,
            allow_direct=True,
        ),
        api.StreamConfig(
            name=subjects.STREAM_JOBS,
            subjects=[subjects.JOBS_WILDCARD],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            num_replicas=options.replicas,
            max_msgs=100_000,
            max_bytes=64 * _MIB,
            max_msg_size=64 * 1024,
            # A full queue refuses new jobs, so that the caller knows.
            discard=api.DiscardPolicy.NEW,
            duplicate_window=120.0,
        ),
        # Copied by the server itself from the state's own streams: nothing can die between a change and its event.
        api.StreamConfig(
            name=subjects.STREAM_EVENTS,
            sources=[
                _source(subjects.BUCKET_ROOMS, *(f"*.*.{kind}" for kind in ("room", "p.*", "pub.*"))),
                _source(subjects.BUCKET_RECORDINGS, ">"),
                _source(subjects.BUCKET_VODS, ">"),
            ],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            num_replicas=options.replicas,
            max_age=EVENTS_MAX_AGE_S,
            max_bytes=512 * _MIB,
            discard=api.DiscardPolicy.OLD,
        ),
    ]


def bucket_stream(bucket: str) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket}"


def bucket_subject(bucket: str, key: str) -> str:
    """The subject of a key."""
    return f"$KV.{bucket}.{key}"


def parse_bucket_subject(subject: str) -> tuple[str, str]:
    """(bucket, key) of the subject of a key. Raises BadRequestError."""
    parts = subject.split(".", 2)
    if len(parts) != 3 or parts[0] != "$KV":
        raise BadRequestError("not the subject of a key")
    return parts[1], parts[2]


def _source(bucket: str, *key_filters: str) -> api.StreamSource:
    """Copies the writes of the keys that match; their subjects stay as they are."""
    wanted = [api.SubjectTransform(src=bucket_subject(bucket, key), dest="") for key in key_filters]
    return api.StreamSource(name=bucket_stream(bucket), subject_transforms=wanted)


def _bucket(
    bucket: str,
    options: SchemaOptions,
    *,
    ttl_s: float | None = None,
    storage: api.StorageType = api.StorageType.FILE,
    max_bytes: int = 64 * _MIB,
    max_value: int = 64 * 1024,
) -> api.StreamConfig:
    return api.StreamConfig(
        name=bucket_stream(bucket),
        subjects=[bucket_subject(bucket, ">")],
        storage=storage,
        num_replicas=options.replicas,
        max_age=ttl_s,
        max_bytes=max_bytes,
        max_msgs_per_subject=1,
        max_msg_size=max_value,
        max_msgs=-1,
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True,
        # An expired key leaves a marker, so that watchers hear of it (nats-server 2.11); without it they never would.
        subject_delete_marker_ttl=_EXPIRY_MARKER_TTL_S if ttl_s else None,
        duplicate_window=min(120.0, ttl_s or 120.0),
    )
