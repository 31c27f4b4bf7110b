"""Facts about the sandbox."""


async def test_directories_are_absolute_and_the_version_is_the_one_followed(api, daemon):
    assert await api("GET", "/version") == {"version": "0.190.0"}
    for path in ("/work-dir", "/user-home-dir", "/project-dir"):
        assert await api("GET", path) == {"dir": str(daemon.home)}
