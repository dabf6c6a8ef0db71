"""Settings: what is missing is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from panosc_operator.settings import Settings, SettingsError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Set the environment as the Deployment does."""
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32 + b"\n")
    monkeypatch.setenv("PANOSC_NAMESPACE", "panosc-system")
    monkeypatch.setenv("PANOSC_KEY_FILE", str(key))
    monkeypatch.setenv("PANOSC_POD", "panosc-operator-0")
    monkeypatch.delenv("PANOSC_IMAGE", raising=False)
    monkeypatch.delenv("PANOSC_HTTP_PORT", raising=False)
    return monkeypatch


def test_what_is_set_is_read(installed: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environment()
    assert (settings.namespace, settings.pod, settings.image) == ("panosc-system", "panosc-operator-0", None)
    assert settings.key == b"k" * 32
    assert settings.http_port == 8080
    context = settings.context("operator:1")
    assert (context.namespace, context.image, context.key) == ("panosc-system", "operator:1", b"k" * 32)


def test_two_processes_have_two_identities(installed: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment().identity != Settings.from_environment().identity


@pytest.mark.parametrize("name", ["PANOSC_NAMESPACE", "PANOSC_KEY_FILE", "PANOSC_POD"])
def test_what_is_missing_is_named(installed: pytest.MonkeyPatch, name: str) -> None:
    installed.delenv(name)
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment()


def test_a_key_that_is_not_there_or_too_short_is_refused(installed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed.setenv("PANOSC_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="cannot read"):
        Settings.from_environment()
    short = tmp_path / "short"
    short.write_bytes(b"k" * 31)
    installed.setenv("PANOSC_KEY_FILE", str(short))
    with pytest.raises(SettingsError, match="fewer than 32"):
        Settings.from_environment()
