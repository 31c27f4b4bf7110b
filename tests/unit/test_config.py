"""Settings: human durations, where a value comes from, and combinations that are refused before any call."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets import TraitError
from traitlets.config import Config

from daytona_kernel.config import DaytonaSettings, find_credential, parse_duration_s
from daytona_kernel.errors import ConfigurationError


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("DAYTONA_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


# -- durations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 7d ", 604800),
        ("2w", 1209600),
        ("1.5h", 5400),
        ("90", 90),
        ("2H", 7200),
        (0, 0),
        (2.5, 2.5),
        ("0", 0),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str | float, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "  ", "soon", "5 minutes", "-5m", "m", "1h30x", "1..5h", "1h-30m", "∞", "2\u017f", "\u0663m"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="30m"):
        parse_duration_s(text)


@pytest.mark.parametrize("number", [-1, -0.5, float("nan"), float("inf")])
def test_a_number_that_is_no_time_span_is_refused(number: float) -> None:
    with pytest.raises(ConfigurationError):
        parse_duration_s(number)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration_s(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_a_configuration_error(text: str) -> None:
    try:
        assert parse_duration_s(text) >= 0
    except ConfigurationError:
        pass


def test_a_trait_that_is_a_duration_holds_seconds() -> None:
    settings = DaytonaSettings(auto_stop="30m", create_timeout="2m")
    assert (settings.auto_stop, settings.create_timeout) == (1800, 120)
    with pytest.raises(TraitError, match="soon"):
        settings.auto_stop = "soon"
    with pytest.raises(TraitError):
        settings.auto_stop = object()
    settings.auto_delete = None
    assert settings.auto_delete is None


# -- where a value comes from --------------------------------------------------------------------------

FROM_ENVIRONMENT = [
    ("backend", "DAYTONA_KERNEL_BACKEND", "local", "local", "auto"),
    ("sandbox", "DAYTONA_SANDBOX", "my-box", "my-box", ""),
    ("snapshot", "DAYTONA_KERNEL_SNAPSHOT", "snap", "snap", ""),
    ("image", "DAYTONA_KERNEL_IMAGE", "python:3.12", "python:3.12", ""),
    ("auto_stop", "DAYTONA_KERNEL_AUTO_STOP", "1h", 3600, None),
    ("on_shutdown", "DAYTONA_KERNEL_ON_SHUTDOWN", "delete", "delete", "auto"),
    ("headless", "DAYTONA_KERNEL_HEADLESS", "1", True, False),
    ("network_block_all", "DAYTONA_KERNEL_NETWORK_BLOCK_ALL", "yes", True, False),
    ("create_timeout", "DAYTONA_KERNEL_CREATE_TIMEOUT", "5m", 300, 120),
]


@pytest.mark.parametrize(("trait", "variable", "text", "value", "fallback"), FROM_ENVIRONMENT)
def test_the_environment_goes_before_the_default(
    monkeypatch: pytest.MonkeyPatch, trait: str, variable: str, text: str, value: object, fallback: object
) -> None:
    assert getattr(DaytonaSettings(), trait) == fallback
    monkeypatch.setenv(variable, text)
    assert getattr(DaytonaSettings(), trait) == value


def test_configuration_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_KERNEL_SNAPSHOT", "from-environment")
    config = Config({"DaytonaSettings": {"snapshot": "from-file"}})
    assert DaytonaSettings(config=config).snapshot == "from-file"


@pytest.mark.parametrize(
    ("variable", "trait"),
    [
        ("DAYTONA_KERNEL_BACKEND", "backend"),
        ("DAYTONA_KERNEL_ON_SHUTDOWN", "on_shutdown"),
        ("DAYTONA_KERNEL_AUTO_STOP", "auto_stop"),
        ("DAYTONA_KERNEL_CREATE_TIMEOUT", "create_timeout"),
    ],
)
def test_a_bad_value_in_the_environment_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, trait: str
) -> None:
    """It must surface as our error from `check`, so that the cell shows it and the kernel lives."""
    monkeypatch.setenv(variable, "nonsense")
    with pytest.raises(ConfigurationError, match=variable):
        DaytonaSettings().check()


def test_a_trailing_slash_of_the_url_does_not_matter() -> None:
    assert DaytonaSettings(api_url="https://x.test/api/").api_url == "https://x.test/api"


# -- combinations --------------------------------------------------------------------------------------


def test_a_snapshot_and_an_image_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="snapshot or from an image"):
        DaytonaSettings(snapshot="a", image="b").check()


@pytest.mark.parametrize("size", ["cpu", "memory_gib", "disk_gib"])
def test_sizes_need_an_image(size: str) -> None:
    with pytest.raises(ConfigurationError, match="need an image"):
        DaytonaSettings(**{size: 2}).check()
    DaytonaSettings(**{size: 2}, image="python:3.12").check()


def test_auto_stop_is_whole_minutes() -> None:
    with pytest.raises(ConfigurationError, match="whole minutes"):
        DaytonaSettings(auto_stop="90s").check()
    DaytonaSettings(auto_stop="2m").check()
    DaytonaSettings(auto_stop=0).check()


def test_the_defaults_are_a_good_combination() -> None:
    DaytonaSettings().check()


@pytest.mark.parametrize(("trait", "value"), [("cpu", -1), ("backend", "moon"), ("on_shutdown", "explode")])
def test_values_out_of_range_are_refused(trait: str, value: object) -> None:
    with pytest.raises(TraitError):
        DaytonaSettings(**{trait: value})


# -- credentials ---------------------------------------------------------------------------------------


def test_without_credentials_the_embedded_server_is_used() -> None:
    assert DaytonaSettings().is_local


@pytest.mark.parametrize("variable", ["DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN"])
def test_with_credentials_in_the_environment_the_service_is_used(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "dtn_x")
    assert not DaytonaSettings().is_local
    assert DaytonaSettings(backend="local").is_local


def test_a_configured_key_means_the_service() -> None:
    assert not DaytonaSettings(api_key="dtn_x").is_local


def test_dotenv_files_are_read_in_the_order_of_the_sdk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("DAYTONA_API_KEY=from-env-file\n")
    assert find_credential("DAYTONA_API_KEY") == "from-env-file"
    (tmp_path / ".env.local").write_text("DAYTONA_API_KEY=from-env-local\n")
    assert find_credential("DAYTONA_API_KEY") == "from-env-local"
    monkeypatch.setenv("DAYTONA_API_KEY", "from-environment")
    assert find_credential("DAYTONA_API_KEY") == "from-environment"
    assert find_credential("DAYTONA_JWT_TOKEN") == ""


def test_every_setting_has_a_manual() -> None:
    for name, trait in DaytonaSettings.class_own_traits(config=True).items():
        assert len(trait.help) > 20, name


def test_numbers_and_texts_of_a_new_sandbox_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in {
        "CPU": "4",
        "MEMORY_GIB": "8",
        "DISK_GIB": "20",
        "GPU": "1",
        "IMAGE": "python:3.12",
    }.items():
        monkeypatch.setenv(f"DAYTONA_KERNEL_{name}", text)
    monkeypatch.setenv("DAYTONA_KERNEL_ENV_VARS", '{"STAGE": "test"}')
    monkeypatch.setenv("DAYTONA_KERNEL_LABELS", '{"team": "ml"}')
    settings = DaytonaSettings()
    settings.check()
    assert (settings.cpu, settings.memory_gib, settings.disk_gib, settings.gpu) == (4, 8, 20, 1)
    assert (settings.env_vars, settings.labels) == ({"STAGE": "test"}, {"team": "ml"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CPU", "two"),
        ("GPU", "-1"),
        ("ENV_VARS", "A=secret"),
        ("ENV_VARS", '["secret"]'),
        ("LABELS", '{"a": 1}'),
    ],
)
def test_what_can_not_be_a_number_or_texts_is_refused_without_its_values(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"DAYTONA_KERNEL_{name}", text)
    with pytest.raises(ConfigurationError, match=f"DAYTONA_KERNEL_{name} is") as caught:
        DaytonaSettings().check()
    assert "secret" not in str(caught.value)
