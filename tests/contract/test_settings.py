"""deploy/config/ documents exactly the settings that the services have."""

from __future__ import annotations

from pathlib import Path

import pytest
from mrtc_common.settings import Settings
from mrtc_master.config import MasterSettings
from mrtc_rtcmcu.config import McuSettings
from mrtc_rtcrecorder.config import RecorderSettings
from mrtc_rtcvod.config import VodSettings
from mrtc_signaling.config import SignalingSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "settings",
    [SignalingSettings, MasterSettings, McuSettings, RecorderSettings, VodSettings],
    ids=lambda settings: settings.service,
)
def test_the_annotated_file_is_what_the_service_prints(
    settings: type[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """`make settings` renews the files."""
    with pytest.raises(SystemExit):
        settings.load(["--print-config"], {})
    assert (ROOT / "deploy" / "config" / f"{settings.service}.yaml").read_text() == capsys.readouterr().out
