"""Defences of what a person asks the sandbox for, and of the programs that show its answers."""

from __future__ import annotations

from .model import ASSERTED, Edit, Mutant, mutant

FRAMES = "security/test_hostile_frames.py::"
SERVER = "security/test_hostile_server.py::"
TERMINAL = "security/test_terminal.py::"
TRANSFER = "magics/test_transfer.py::"

NAMES = "your files: a list that names others than were asked for"
PAINT = "terminal: output of cells in a plain IPython"
RUNNERS = "programs that run notebooks: forged numbers, ids and facts"

MUTANTS = (
    mutant(
        NAMES,
        "magics/transfers.py",
        "            if not can_be_of(name, sources):\n",
        "            if False:\n",
        TRANSFER + "test_only_what_was_asked_for_is_written",
    ),
    mutant(
        NAMES,
        "supplies.py",
        "            if not can_be_below(below, patterns):\n",
        "            if False:\n",
        TRANSFER + "test_only_what_matches_is_collected",
    ),
    mutant(
        NAMES,
        "magics/recordings.py",
        'return plain if plain.lower().endswith(VIDEOS) and not plain.startswith("-") else "recording.mp4"',
        "return plain",
        TRANSFER + "test_a_recording_has_the_name_of_a_video",
    ),
    mutant(
        "memory: answers whose objects take 20 times their size",
        "answers.py",
        "    if wire.is_heavy(data):\n",
        "    if False:\n",
        SERVER + "test_a_bomb_of_empty_lists_is_given_up",
    ),
    mutant(
        RUNNERS,
        "session.py",
        '        if is_count(state.get("execution_count")):\n',
        '        if isinstance(state.get("execution_count"), int):\n',
        FRAMES + "test_a_forged_count_is_not_the_next_cell_s_number",
    ),
    Mutant(
        RUNNERS,
        (
            Edit(
                "messages.py",
                '    if isinstance(transient.get("display_id"), (list, dict)):\n',
                "    if False:\n",
            ),
            Edit("messages.py", 'return {"data": {}, **known}', 'return {"data": {}, **content}'),
        ),
        (FRAMES + "test_messages_hold_nothing_that_programs_running_notebooks_fail_over",),
    ),
    mutant(
        RUNNERS,
        "context.py",
        "    known |= {name: without_sequences(clean_text(known[name][:SHOWN_CHARS])) for name in SHOWN}\n",
        "",
        FRAMES + "test_what_an_agent_says_of_itself_can_be_told",
        why=f"{ASSERTED}|UnicodeEncodeError",
    ),
    mutant(
        "kernel: code that keeps the next cell from beginning",
        "session.py",
        "            if running.interrupts > 1 and self._link.context_id in self._own:\n",
        "            if False:\n",
        FRAMES + "test_what_keeps_a_cell_from_beginning_can_be_interrupted",
    ),
    mutant(
        "Jupyter's page, browser: addresses of previews",
        "magics/preview.py",
        "    if not usable or not url.isprintable()",
        "    if False and not url.isprintable()",
        SERVER + "test_a_preview_is_a_web_page_s_address",
    ),
    mutant(
        PAINT,
        "terminal.py",
        "        return painted(text)\n",
        "        return text\n",
        TERMINAL + "test_a_cell_s_output_paints_and_does_nothing_else",
        "magics/test_extension.py::test_the_sandbox_does_not_steer_the_terminal",
    ),
    mutant(
        "your files: links that come into a volume as it is mounted",
        "local/daemon.py",
        "            if (facts.st_dev, facts.st_ino) != mount.identity:\n",
        "            if False:\n",
        "local/server/test_isolation.py::test_a_link_that_comes_before_the_mount_shows_nothing_of_the_host",
    ),
    mutant(
        "your keys: the kernel's keyring of the session",
        "local/server.py",
        "        leave_session_keyring()\n",
        "",
        "local/server/test_isolation.py::test_keys_of_the_session_stay_there",
    ),
    mutant(
        "Jupyter's cookies: previews that share its host",
        "local/preview.py",
        "*(JUPYTER_COOKIES if shared_host else ())",
        "*()",
        "security/test_local_server.py::test_jupyter_s_cookies_stay_with_jupyter",
    ),
)
