"""Settings from defaults, a YAML file, the environment and the command line, in this order; the last one wins.

A service declares one frozen subclass of `Settings` with fields made by `setting(...)`. A wrong setting stops the
start with a message that names the setting and the accepted form.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

T = TypeVar("T")


class SettingsError(Exception):
    """A setting is unknown or wrong; the message names it and says what is accepted."""


def setting(default: T, doc: str, *, unit: str = "", **constraints: Any) -> T:
    """A setting with its default, a sentence of documentation, its unit, and pydantic constraints (ge, le, pattern)."""
    field = Field(
        default=default, description=doc, json_schema_extra={"unit": unit}, validate_default=True, **constraints
    )
    return typing.cast(T, field)


class Settings(BaseModel):
    """What every service has. Environment: `MRTC_<SERVICE>_<KEY>`, or `MRTC_<KEY>` for all services at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: ClassVar[str] = "service"

    log_level: str = setting("info", "Least level that is logged.", pattern="^(debug|info|warning|error)$")
    log_format: str = setting("json", "`json` for machines, `text` for people.", pattern="^(json|text)$")
    bind_ip: str = setting("0.0.0.0", "Address that the HTTP and gRPC servers bind to.")  # noqa: S104
    region: str = setting("", "Region of this process; empty: the default region.", max_length=64)
    zone: str = setting("", "Failure domain of this process (zone, rack).", max_length=64)
    cluster_secret: SecretStr = setting(
        SecretStr(""), "Shared secret of all services; every gRPC call between them carries it. At least 16 characters."
    )
    tls_cert_file: Path | None = setting(None, "PEM certificate of the gRPC server; unset: no TLS between services.")
    tls_key_file: Path | None = setting(None, "PEM key of `tls_cert_file`.")
    tls_ca_file: Path | None = setting(None, "PEM authority that both sides of a gRPC connection must be signed by.")
    nats_urls: list[str] = setting(["nats://127.0.0.1:4222"], "NATS servers; several: separated by commas.")
    nats_user: str = setting("", "User at the NATS server.")
    nats_password: SecretStr = setting(SecretStr(""), "Password at the NATS server.")
    nats_token: SecretStr = setting(SecretStr(""), "Token at the NATS server, instead of user and password.")
    nats_credentials_file: Path | None = setting(None, "NATS credentials file (JWT and nkey).")
    nats_replicas: int = setting(1, "Copies of every stream and bucket.", ge=1, le=5)
    session_grace_s: float = setting(
        30.0, "How long a session survives without a connection: TTL of its record.", unit="s", ge=2, le=3600
    )

    @field_validator("cluster_secret")
    @classmethod
    def _secret_is_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:
            raise ValueError("must be set to the cluster's shared secret, at least 16 characters")
        return value

    @classmethod
    def load(
        cls,
        argv: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        prog: str | None = None,
    ) -> Self:
        """Reads all sources. Ends the process for `--help` and `--print-config`. Raises SettingsError.

        Args:
            argv: command line without the program; None: the process's.
            environ: environment; None: the process's.
        """
        namespace, flags = cls._parse_command_line(sys.argv[1:] if argv is None else argv, prog)
        values: dict[str, Any] = {}
        if namespace.config:
            values |= cls._read_file(Path(namespace.config))
        values |= cls._read_environment(os.environ if environ is None else environ)
        values |= flags
        if namespace.print_config:
            sys.stdout.write(cls._describe(values))
            raise SystemExit(0)
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Settings of these values over the defaults; text is converted. Raises SettingsError."""
        converted = {key: _split_list(cls.model_fields.get(key), value) for key, value in values.items()}
        try:
            return cls(**converted)
        except ValidationError as error:
            raise SettingsError("\n".join(cls._explain(item) for item in error.errors())) from None

    @classmethod
    def env_names(cls, key: str) -> tuple[str, str]:
        """The environment variables of a setting: the service's own, which wins, and the common one."""
        return f"MRTC_{cls.service.upper()}_{key.upper()}", f"MRTC_{key.upper()}"

    @classmethod
    def _parse_command_line(cls, argv: Sequence[str], prog: str | None) -> tuple[argparse.Namespace, dict[str, Any]]:
        parser = argparse.ArgumentParser(prog=prog or f"mrtc-{cls.service}", allow_abbrev=False)
        parser.add_argument("--config", metavar="FILE", help="YAML file of settings")
        parser.add_argument("--print-config", action="store_true", help="print all settings as YAML and end")
        for key, field in cls.model_fields.items():
            text = (field.description or "").replace("%", "%%")
            option = "--" + key.replace("_", "-")
            if field.annotation is bool:
                parser.add_argument(option, dest=key, nargs="?", const="true", default=None, metavar="BOOL", help=text)
            else:
                parser.add_argument(option, dest=key, default=None, metavar="VALUE", help=text)
        namespace = parser.parse_args(list(argv))
        flags = {key: value for key in cls.model_fields if (value := getattr(namespace, key)) is not None}
        return namespace, flags

    @classmethod
    def _read_file(cls, path: Path) -> dict[str, Any]:
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"--config {path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingsError(f"--config {path}: not YAML: {error}") from None
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise SettingsError(f"--config {path}: must be a mapping of settings")
        return {str(key): value for key, value in document.items() if value is not None}

    @classmethod
    def _read_environment(cls, environ: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key in cls.model_fields:
            for name in reversed(cls.env_names(key)):
                if environ.get(name):
                    values[key] = environ[name]
        return values

    @classmethod
    def _explain(cls, item: Mapping[str, Any]) -> str:
        message = str(item["msg"]).removeprefix("Value error, ")
        if not item["loc"]:  # of several together; the message names them
            return f"settings of {cls.service}: {message}"
        key = str(item["loc"][0])
        if key not in cls.model_fields:
            return f"setting {key}: no such setting of {cls.service}; --print-config lists all"
        field = cls.model_fields[key]
        shown = "" if _is_secret(field) else f", got {item.get('input')!r}"
        name = f"setting {key} ({cls.env_names(key)[0]})"
        return f"{name}: {message}{shown}. Accepted: {_type_name(field)}. {field.description}"

    @classmethod
    def _describe(cls, values: Mapping[str, Any]) -> str:
        lines: list[str] = []
        for key, field in cls.model_fields.items():
            value = values.get(key, field.default)
            if _is_secret(field):
                value = "**********" if key in values else ""
            elif isinstance(value, Path):
                value = str(value)
            unit = typing.cast(dict[str, Any], field.json_schema_extra or {}).get("unit")
            lines.append(f"# {field.description}" + (f" Unit: {unit}." if unit else ""))
            lines.append(f"# {_type_name(field)}; environment: {cls.env_names(key)[0]}")
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
            lines.append(f"{key}: {text.split(chr(10), 1)[0]}")
        return "\n".join(lines) + "\n"


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr


def _type_name(field: FieldInfo) -> str:
    annotation = field.annotation
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", SecretStr: "text (secret)"}
    if annotation in names:
        base = names[annotation]
    elif typing.get_origin(annotation) is list:
        base = "texts separated by commas, or a list"
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        base = "a path or nothing"
    else:
        base = getattr(annotation, "__name__", str(annotation))
    bounds = {type(part).__name__: part for part in field.metadata}
    low = getattr(bounds.get("Ge"), "ge", getattr(bounds.get("Gt"), "gt", None))
    high = getattr(bounds.get("Le"), "le", getattr(bounds.get("Lt"), "lt", None))
    if low is not None and high is not None:
        return f"{base} from {low:g} to {high:g}"
    return f"{base}, at least {low:g}" if low is not None else base


def _split_list(field: FieldInfo | None, value: Any) -> Any:
    if field is not None and isinstance(value, str) and typing.get_origin(field.annotation) is list:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value
