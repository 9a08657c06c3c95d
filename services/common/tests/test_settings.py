"""Where settings come from, which source wins, and what is said of a wrong one."""

from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from mrtc_common.settings import Settings, SettingsError, setting

SECRET = {"MRTC_CLUSTER_SECRET": "0123456789abcdef"}


class _Settings(Settings):
    service: ClassVar[str] = "demo"

    size: int = setting(3, "How many.", unit="B", ge=1, le=9)
    names: list[str] = setting(["a"], "Which.")
    is_on: bool = setting(False, "Whether.")
    root: Path | None = setting(None, "Where.")


def _load(argv: list[str] | None = None, **environ: str) -> _Settings:
    return _Settings.load(argv or [], SECRET | environ)


def test_defaults_hold() -> None:
    settings = _load()
    assert (settings.size, settings.names, settings.is_on, settings.root) == (3, ["a"], False, None)


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("size: 4\nnames: [x, y]\nis_on: true\n")
    assert _load(["--config", str(file)]).size == 4
    assert _load(["--config", str(file)], MRTC_SIZE="5").size == 5
    assert _load(["--config", str(file)], MRTC_SIZE="5", MRTC_DEMO_SIZE="6").size == 6
    assert _load(["--config", str(file), "--size", "7"], MRTC_DEMO_SIZE="6").size == 7
    assert _load(["--config", str(file)]).names == ["x", "y"]


def test_text_is_converted() -> None:
    settings = _load(["--is-on", "--names", "a, b"], MRTC_ROOT="/srv")
    assert (settings.is_on, settings.names, settings.root) == (True, ["a", "b"], Path("/srv"))


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        (["--size", "10"], {}, "setting size (MRTC_DEMO_SIZE): Input should be less than or equal to 9, got '10'"),
        ([], {"MRTC_SIZE": "x"}, "Accepted: an integer from 1 to 9. How many."),
        ([], {"MRTC_IS_ON": "perhaps"}, "setting is_on (MRTC_DEMO_IS_ON)"),
        ([], {"MRTC_LOG_FORMAT": "xml"}, "setting log_format"),
    ],
)
def test_a_wrong_setting_is_named_with_its_accepted_form(
    argv: list[str], environ: dict[str, str], expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(argv, **environ)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("sise: 1", "no such setting"), ("- 1", "must be a mapping"), ("a: [", "not YAML"), ("\x00", "not YAML")],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        _load(["--config", str(file)])
    assert expected in str(caught.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="No such file"):
        _load(["--config", "/nonexistent/s.yaml"])


def test_a_secret_is_required_and_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        _Settings.load([], {"MRTC_CLUSTER_SECRET": "tooshort"})
    assert "tooshort" not in str(caught.value)
    assert "0123456789abcdef" not in repr(_load())
    with pytest.raises(SystemExit):
        _load(["--print-config"])
    printed = capsys.readouterr().out
    assert "0123456789abcdef" not in printed
    assert yaml.safe_load(printed)["size"] == 3


def test_what_print_config_prints_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _load(["--print-config", "--names", "a,b", "--root", "/srv"])
    document = yaml.safe_load(capsys.readouterr().out)
    del document["cluster_secret"]
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(document))
    assert _load(["--config", str(file)]) == _load(["--names", "a,b", "--root", "/srv"])


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        _load().size = 5
