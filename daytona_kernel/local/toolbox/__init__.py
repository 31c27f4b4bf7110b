"""The daemon that runs inside each local sandbox and speaks Daytona's toolbox API.

The server starts one such process per sandbox (inside bubblewrap when there is any), listening on a socket
that only the server can reach, and forwards authenticated requests to it. So every path, process and port
that the API names is the sandbox's own, and no request can reach out of it.
"""
