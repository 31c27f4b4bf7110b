"""What the system says becomes what the API says."""

import errno

import pytest

from daytona_kernel.local.toolbox.errors import ToolboxError, error_body, path_error


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), 404, "FILE_NOT_FOUND"),
        (PermissionError(errno.EACCES, "x"), 403, "FILE_ACCESS_DENIED"),
        (FileExistsError(errno.EEXIST, "x"), 409, "CONFLICT"),
        (ValueError("embedded null byte"), 400, "INVALID_FILE_PATH"),
        (OSError(errno.EIO, "x"), 500, "FILE_READ_FAILED"),
        (NotADirectoryError(errno.ENOTDIR, "x"), 400, "INVALID_FILE_PATH"),
        (OSError(errno.ELOOP, "too many links"), 400, "INVALID_FILE_PATH"),
        (OSError(errno.ENOSPC, "no space"), 400, "INVALID_FILE_PATH"),
    ],
)
def test_system_errors_get_the_status_and_code_that_the_sdk_knows(exc, status, code):
    error = path_error(exc, "/some/file")
    assert (error.status, error.code) == (status, code)
    assert "/some/file" in error.message


def test_a_body_carries_everything_that_clients_look_at():
    body = error_body(ToolboxError(409, "exists"), path="/p", method="POST")
    assert body.pop("timestamp").endswith("Z")
    assert body == {
        "statusCode": 409,
        "message": "exists",
        "code": "CONFLICT",
        "source": "DAYTONA_DAEMON",
        "path": "/p",
        "method": "POST",
    }


async def test_an_unknown_path_is_404_and_a_wrong_method_405(api):
    assert (await api.error("GET", "/no/such/thing", 404))["code"] == "NOT_FOUND"
    assert (await api.error("PUT", "/files", 405))["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("body", ["{", "[]", "1", '"x"', b"\xff", "[" * 100_000])
async def test_a_body_that_is_no_json_object_is_400(api, body):
    error = await api.error("POST", "/process/execute", 400, data=body)
    assert error["code"] == "INVALID_REQUEST_BODY"


async def test_an_empty_body_announced_as_json_counts_as_an_empty_object(api):
    error = await api.error(
        "POST", "/process/execute", 400, data=b"", headers={"Content-Type": "application/json"}
    )
    assert error["message"] == "command is required"
