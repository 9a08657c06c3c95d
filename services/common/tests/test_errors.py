"""The error tree is complete and the same in code, protos and documentation."""

import re
from pathlib import Path

import pytest
from mrtc.common.v1 import common_pb2
from mrtc_common.engine_errors import engine_errors
from mrtc_common.errors import (
    ALL_ERRORS,
    BadOfferError,
    InternalError,
    NoCapacityError,
    PublicationNotFoundError,
    UnavailableError,
    error_by_code,
    error_by_name,
)

DOCS = Path(__file__).parents[3] / "docs" / "errors.md"


def test_every_code_has_one_class() -> None:
    codes = sorted(error.code for error in ALL_ERRORS)
    assert codes == sorted(set(common_pb2.ErrorCode.values()) - {common_pb2.ERROR_CODE_UNSPECIFIED})


def test_the_documented_table_is_equal_to_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\w+) \| (\d+) \|", DOCS.read_text(), re.MULTILINE)
    expected = [(e.code_name(), str(int(e.code)), e.grpc_status.name, str(e.http_status)) for e in ALL_ERRORS]
    assert rows == expected


@pytest.mark.parametrize("error", ALL_ERRORS)
def test_an_error_is_found_by_name_and_number(error: type) -> None:
    assert type(error_by_name(error.code_name(), "m", 5)) is error
    assert type(error_by_code(error.code, "m")) is error


def test_unknown_codes_are_internal() -> None:
    assert type(error_by_name("nope")) is InternalError
    assert type(error_by_code(999)) is InternalError


def test_retry_after_is_kept() -> None:
    assert NoCapacityError(retry_after_ms=7).to_proto_fields()["retry_after_ms"] == 7
    assert "retry_after_ms" not in BadOfferError("x").to_proto_fields()
    assert UnavailableError().retry_after_ms


class EngineError(Exception):
    def __init__(self, code: str) -> None:
        self.code, self.message = code, "why"


class EngineBusy(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (EngineError("bad_offer"), BadOfferError),
        (EngineError("track_not_found"), PublicationNotFoundError),
        (EngineError("news"), InternalError),
        (EngineBusy(), UnavailableError),
        (ValueError("other"), ValueError),
    ],
)
def test_engine_errors_become_ours(raised: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), engine_errors():
        raise raised


def test_the_engines_closed_list_is_mapped() -> None:
    source = (Path(__file__).parents[3] / "engine/crates/core/src/error.rs").read_text()
    for code in re.findall(r'=> "(\w+)"', source):
        assert type(error_by_name(code)) is not InternalError, code
