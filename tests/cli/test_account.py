"""Commands beside a kernel use the account that the kernel uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daytona_kernel import account
from daytona_kernel.doctor import BAD, check_service
from daytona_kernel.errors import ConfigurationError


@pytest.fixture(autouse=True)
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the IPython profile; no account is set anywhere."""
    for name in [name for name in os.environ if name.startswith("DAYTONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ipython" / "profile_default").mkdir(parents=True)
    return tmp_path / "ipython" / "profile_default"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A folder without, one with and another with credentials."""
    found = []
    for name, content in (("none", "OTHER=1"), ("one", "DAYTONA_API_KEY=k1"), ("two", "DAYTONA_API_KEY=k2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".env").write_text(f"{content}\nDAYTONA_TARGET=eu\n")
        found.append(tmp_path / name)
    return found


def test_the_first_folder_with_credentials_counts(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert account.account_folder(folders) == folders[1]
    assert account.account_folder(folders[:1]) is None
    assert account.account_variables(folders[2]) == {"DAYTONA_API_KEY": "k2", "DAYTONA_TARGET": "eu"}
    monkeypatch.setenv("DAYTONA_API_KEY", "k0")
    assert account.account_folder(folders) is None


def test_a_file_of_an_account_gives_no_address(folders: list[Path]) -> None:
    with (folders[2] / ".env").open("a") as file:
        file.write("DAYTONA_API_URL=https://evil.test/api\nDAYTONA_SERVER_URL=https://evil.test/api\n")
    assert account.account_folder(folders[2:]) == folders[2]
    assert "evil" not in str(account.account_variables(folders[2]))
    assert account.kernel_settings({}, folders[2]).api_url == ""


def test_settings_are_those_of_a_kernel_with_other_variables_in_another_folder(folders: list[Path]) -> None:
    variables = {"DAYTONA_API_URL": "https://other.test/api", "DAYTONA_KERNEL_SNAPSHOT": "ml"}
    settings = account.kernel_settings(variables, folders[2], sandbox="s1")
    found = (settings.api_key, settings.api_url, settings.snapshot, settings.sandbox)
    assert found == ("k2", "https://other.test/api", "ml", "s1")
    assert not settings.is_local
    assert account.kernel_settings({}, folders[0]).is_local
    assert account.kernel_settings({"DAYTONA_KERNEL_BACKEND": "local"}, folders[1]).is_local
    assert not variables.keys() & os.environ.keys()


def test_the_file_of_settings_counts_for_commands_too(profile: Path) -> None:
    (profile / account.CONFIG_FILE).write_text("c.DaytonaSettings.api_key = 'from-the-file'\n")
    assert account.user_settings().api_key == "from-the-file"
    assert account.user_settings(api_key="given").api_key == "given"
    (finding,) = check_service()
    assert "Daytona's service; found credentials (API key" in finding.text


@pytest.mark.parametrize("content", ["c.DaytonaSettings.backend = 'moon'", "1 +", "import not_there"])
def test_a_file_of_settings_that_can_not_be_used_is_named(profile: Path, content: str) -> None:
    (profile / account.CONFIG_FILE).write_text(content)
    with pytest.raises(ConfigurationError, match=account.CONFIG_FILE):
        account.user_settings()
    bad, other = check_service()
    assert bad.level == BAD
    assert account.CONFIG_FILE in bad.text
    assert "embedded local server" in other.text
