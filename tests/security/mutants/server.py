"""Defences of the local server: against strangers, web pages, visitors of previews, and its own sandboxes."""

from __future__ import annotations

from .model import Edit, Mutant, mutant

LOCAL = "security/test_local_server.py::"
INSIDE = "local/server/test_isolation.py::"
PREVIEW = "local/server/test_preview.py::"
FOREIGN = "browser/test_foreign_page.py::test_a_foreign_page_gets_nothing"
SEEN = LOCAL + "test_a_previewed_program_never_sees_the_key_or_a_token"

NO_KEY_NEEDED = Edit(
    "local/server.py",
    '    if not state.authorized(request):\n        return api_error_response(path, 401, "Invalid',
    '    if False:\n        return api_error_response(path, 401, "Invalid',
)
SHARED_NETWORK = Edit(
    "local/isolation.py", "    slirp = None if network ==", "    slirp = None if True or network =="
)
HOST_FILES = Edit(
    "local/isolation.py",
    '        *("--bind", str(files / "home"), HOME),\n',
    '        *("--bind", str(files / "home"), HOME),\n'
    '        *("--ro-bind", os.environ["TMPDIR"], os.environ["TMPDIR"]),\n',
)
WHOLE_ENVIRONMENT = Edit(
    "local/daemon.py",
    "env = {**daemon_environment(), MARKER:",
    "env = {**__import__('os').environ, **daemon_environment(), MARKER:",
)

MUTANTS = (
    Mutant(
        "local server: any route without the key",
        (NO_KEY_NEEDED,),
        (LOCAL + "test_every_route_needs_the_key",),
    ),
    mutant(
        "local server: any route without the key",
        "local/toolbox_proxy.py",
        "    if not state.authorized(request):\n",
        "    if False:\n",
        LOCAL + "test_every_route_needs_the_key",
    ),
    mutant(
        "local server: guessing by time",
        "local/state.py",
        'return hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.api_key}".encode())',
        'return given == f"Bearer {self.api_key}"',
        LOCAL + "test_keys_are_compared_in_constant_time",
    ),
    # Another address of loopback, so that running this opens nothing to a network.
    mutant(
        "local server: other interfaces",
        "local/server.py",
        'sock.bind(("127.0.0.1", wish))',
        'sock.bind(("127.0.0.2", wish))',
        LOCAL + "test_it_listens_on_loopback_only_and_can_not_be_told_otherwise",
    ),
    mutant(
        "local server: DNS rebinding",
        "local/server.py",
        'return name.lower() in ("localhost", "127.0.0.1", "[::1]") or bool(',
        "return True or bool(",
        LOCAL + "test_a_name_of_somebody_else_s_is_refused_even_with_the_key",
    ),
    mutant(
        "local server: DNS rebinding",
        "local/server.py",
        'return name.lower() in ("localhost", "127.0.0.1", "[::1]") or bool(',
        "return True or bool(",
        FOREIGN,
    ),
    mutant(
        "local server: requests across origins",
        "local/server.py",
        '        response.headers["X-Daytona-Api-Version"] = DAEMON_VERSION\n',
        '        response.headers["Access-Control-Allow-Origin"] = "*"\n',
        LOCAL + "test_web_pages_can_not_use_it",
    ),
    mutant(
        "local server: requests across origins",
        "local/server.py",
        '        response.headers["X-Daytona-Api-Version"] = DAEMON_VERSION\n',
        '        response.headers["Access-Control-Allow-Origin"] = "*"\n',
        FOREIGN,
    ),
    mutant(
        "sandboxes: WebSockets across origins",
        "local/server.py",
        'if path.startswith("/api/socket.io/") and not origin_allowed(request):',
        "if False:",
        LOCAL + "test_web_pages_can_not_open_websockets",
    ),
    mutant(
        "sandboxes: WebSockets across origins",
        "local/server.py",
        'if path.startswith("/api/socket.io/") and not origin_allowed(request):',
        "if False:",
        FOREIGN,
    ),
    mutant(
        "sandboxes: WebSockets across origins",
        "local/toolbox_proxy.py",
        "    if not state.authorized(request):\n",
        "    if False:\n",
        LOCAL + "test_web_pages_can_not_open_websockets",
    ),
    mutant(
        "sandbox's toolbox: path tricks",
        "local/preview.py",
        'where = f"/proxy/{target.port}{path}"',
        'where = __import__("posixpath").normpath(f"/proxy/{target.port}{path}")',
        LOCAL + "test_a_preview_leads_to_its_port_and_nowhere_else",
    ),
    Mutant(
        "host's services: preview of a host's port",
        (SHARED_NETWORK,),
        (LOCAL + "test_the_server_itself_is_no_port_of_a_sandbox",),
    ),
    mutant(
        "key, tokens: headers, cookies, queries",
        "local/preview.py",
        '            headers.popall("Authorization", None)\n',
        "",
        SEEN,
    ),
    mutant(
        "key, tokens: headers, cookies, queries",
        "local/preview.py",
        'token = headers.pop(TOKEN_HEADER, "")',
        'token = headers.get(TOKEN_HEADER, "")',
        SEEN,
    ),
    mutant(
        "key, tokens: headers, cookies, queries",
        "local/preview.py",
        "    others = (OUR_COOKIES, ",
        "    others = ('no such', ",
        SEEN,
    ),
    mutant(
        "key, tokens: headers, cookies, queries",
        "local/preview.py",
        "for name, value in query if name != TOKEN_QUERY])",
        "for name, value in query])",
        SEEN,
    ),
    mutant(
        "previews: no token, an old one",
        "local/preview.py",
        "return sandbox.record.public and target.port not in RESERVED_PORTS, False",
        "return True, False",
        PREVIEW + "test_strangers_see_nothing",
    ),
    mutant(
        "previews: no token, an old one",
        "local/preview_tokens.py",
        "return preview if preview is not None and preview.expires_at > self._clock.now() else None",
        "return preview",
        PREVIEW + "test_signed_link_opens_its_port_until_it_expires",
    ),
    Mutant(
        "local server: smuggled requests",
        (
            Edit("local/proxy.py", 'more = ["Transfer-Encoding: chunked"] if chunked else []', "more = []"),
            Edit("local/proxy.py", "if chunked else data)", "if False else data)"),
            Edit("local/proxy.py", "    if chunked:\n", "    if False:\n"),
        ),
        (LOCAL + "test_a_second_request_can_not_be_smuggled_in",),
    ),
    mutant(
        "server's files: names that are paths",
        "local/volumes.py",
        '        (self._directory / volume_id / "data").mkdir(parents=True, mode=0o755)\n',
        '        (self._directory / name / "data").mkdir(parents=True, mode=0o755)\n'
        "        (self._directory / volume_id).mkdir(exist_ok=True)\n",
        LOCAL + "test_a_name_is_never_a_path",
    ),
    mutant(
        "local server: half requests, large bodies",
        "local/server.py",
        "        for number in known & silent.keys():\n",
        "        for number in ():\n",
        LOCAL + "test_connections_that_say_nothing_are_closed_and_hold_up_nobody",
    ),
    mutant(
        "local server: half requests, large bodies",
        "local/server.py",
        "client_max_size=MAX_BODY)",
        "client_max_size=100 * MAX_BODY)",
        LOCAL + "test_a_body_has_a_limit",
    ),
    mutant(
        "local server: floods of requests, guesses",
        "local/server.py",
        "    if response.status == 401:\n",
        "    if False:\n",
        LOCAL + "test_guesses_are_limited_and_lock_nobody_out",
    ),
    mutant(
        "local server: floods of requests, guesses",
        "local/server.py",
        "    if verdict.retry_after_s:\n",
        "    if False:\n",
        LOCAL + "test_a_loop_of_creations_is_told_when_to_go_on",
    ),
    mutant(
        "local server: listeners that never say who they are",
        "local/events.py",
        "if self._strangers >= MAX_STRANGERS:",
        "if False:",
        LOCAL + "test_listeners_who_do_not_say_who_they_are_are_few",
    ),
    mutant(
        "key: files, arguments, environment of processes",
        "local/server.py",
        "descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)",
        "descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)",
        LOCAL + "test_files_are_their_owner_s_alone",
    ),
    Mutant(
        "key: files, arguments, environment of processes",
        (
            Edit(
                "local/server.py",
                "        events = EventHub(api_key)\n",
                "        events = EventHub(api_key)\n        os.environ['THE_KEY'] = api_key\n",
            ),
            WHOLE_ENVIRONMENT,
        ),
        (LOCAL + "test_no_process_has_the_key_in_its_words_or_environment",),
    ),
    Mutant(
        "local server: its key, its port, its process",
        (SHARED_NETWORK,),
        (LOCAL + "test_a_sandbox_can_not_use_the_server",),
    ),
    Mutant(
        "local server: its key, its port, its process",
        (HOST_FILES,),
        (LOCAL + "test_a_sandbox_can_not_use_the_server",),
    ),
    Mutant(
        "local server: its key, its port, its process",
        (SHARED_NETWORK, NO_KEY_NEEDED),
        (INSIDE + "test_server_is_out_of_reach_from_inside",),
    ),
    Mutant(
        "your files, processes: the host from inside",
        (HOST_FILES,),
        (INSIDE + "test_files_of_the_user_are_not_there",),
    ),
    mutant(
        "your files, processes: the host from inside",
        "local/isolation.py",
        '*("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),',
        '*("--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),',
        INSIDE + "test_processes_of_the_host_can_not_be_seen_or_signalled",
    ),
    Mutant(
        "your files, processes: the host from inside",
        (WHOLE_ENVIRONMENT,),
        (INSIDE + "test_environment_of_the_host_does_not_leak",),
    ),
    mutant(
        "your files: links left for the server to follow",
        "local/safe_files.py",
        "DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        INSIDE + "test_links_left_behind_do_not_lead_the_server_out",
    ),
    mutant(
        "other sandboxes: files, ports, processes",
        "local/isolation.py",
        '*("--bind", str(files / "tmp"), "/tmp"),',
        '*("--bind", str(files.parent.parent), "/tmp"),',
        INSIDE + "test_neighbours_do_not_see_each_other",
    ),
    mutant(
        "you: not knowing",
        "local/isolation.py",
        '    name = "none"\n',
        '    name = "bubblewrap"\n',
        "local/server/test_plain.py::test_it_says_that_it_is_not_isolated",
    ),
)
