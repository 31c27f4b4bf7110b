"""Defences of the kernel, the commands and this machine against the sandbox."""

from __future__ import annotations

from .model import ASSERTED, Edit, Mutant, mutant

FRAMES = "security/test_hostile_frames.py::"
CELL = "security/test_hostile_cell.py::"
SERVER = "security/test_hostile_server.py::"
FILES = "magics/test_files.py::"
TERMINAL = "security/test_terminal.py::"

OF_ANOTHER = "if line.execution_id != self.execution_id or line.number < self.next_number:"
OF_ANY = "if line.number < self.next_number:"

MUTANTS = (
    mutant(
        "kernel: forged, malformed and unknown frames",
        "messages.py",
        "    if shape is None:\n        return None\n",
        "    if shape is None:\n        return content\n",
        FRAMES + "test_what_is_no_output_of_a_cell_is_text_or_nothing",
    ),
    mutant(
        "kernel: any bytes on the agent's own descriptors",
        "wire.py",
        OF_ANOTHER,
        OF_ANY,
        CELL + "test_garbage_on_the_agent_s_own_descriptor_is_text_of_its_cell",
    ),
    mutant(
        "kernel: NaN, surrogates, huge numbers",
        "sink.py",
        "            cleaned(content),\n",
        "            content,\n",
        FRAMES + "test_strange_values_are_published_as_valid_messages",
        why=r"ValueError: Out of range float|UserWarning|UnicodeEncodeError|DeprecationWarning",
    ),
    mutant(
        "kernel, page: nesting",
        "wire.py",
        '        and not (_is_deep(body["c"]) or _is_deep(body.get("m")))\n',
        "",
        FRAMES + "test_nesting_that_no_walk_survives_is_not_passed_on",
        why=f"{ASSERTED}|RecursionError",
    ),
    mutant(
        "memory: compressed bombs",
        "wire.py",
        "stream.decompress(b64decode(packed), MAX_MESSAGE_BYTES)",
        "stream.decompress(b64decode(packed))",
        FRAMES + "test_a_bomb_of_zeros_is_defused_and_said",
    ),
    mutant(
        "memory: JSON whose objects take 20 times its size",
        "wire.py",
        "        if is_heavy(text):\n",
        "        if False:\n",
        FRAMES + "test_a_bomb_of_empty_lists_is_defused",
    ),
    mutant(
        "memory: lines and parts without end",
        "wire.py",
        "elif self._open_chars > MAX_OPEN_LINE_CHARS:",
        "elif False:",
        FRAMES + "test_a_line_without_end_is_given_up",
    ),
    mutant(
        "memory: lines and parts without end",
        "wire.py",
        '        and body["d"] != ""\n',
        "",
        FRAMES + "test_parts_without_content_do_not_pile_up",
    ),
    mutant(
        "memory: all of it in a whole kernel",
        "wire.py",
        "        if is_heavy(text):\n",
        "        if False:\n",
        CELL + "test_bombs_do_not_fill_the_kernel",
    ),
    mutant(
        "another cell's output: frames of other executions, other parents",
        "wire.py",
        OF_ANOTHER,
        OF_ANY,
        FRAMES + "test_lines_of_other_executions_are_not_taken",
    ),
    mutant(
        "another cell's output: frames of other executions, other parents",
        "sink.py",
        "            parent=self.parent,\n",
        '            parent={"msg_id": "another"},\n',
        FRAMES + "test_lines_of_other_executions_are_not_taken",
    ),
    mutant(
        "notebook's state: forged status, replies, inputs",
        "messages.py",
        "    if shape is None:\n        return None\n",
        "    if shape is None:\n        return content\n",
        CELL + "test_forged_messages_are_output_of_this_cell_or_nothing",
    ),
    mutant(
        "notebook's state: forged replies",
        "messages.py",
        "number if is_count(number) else count",
        "number",
        FRAMES + "test_a_forged_reply_is_a_valid_reply",
    ),
    mutant(
        "notebook's state: forged replies",
        "messages.py",
        "        if not isinstance(answer.get(name), types):\n",
        "        if False:\n",
        CELL + "test_an_agent_that_lies_to_the_front_end_s_questions_gets_its_words_nowhere",
    ),
    mutant(
        "your files: payloads that open an editor, spam of `set_next_input`",
        "messages.py",
        'if item.get("source") in PAYLOADS]',
        'if item.get("source")]',
        FRAMES + "test_payloads_open_no_file_and_come_once_each",
    ),
    mutant(
        "your files: payloads that open an editor, spam of `set_next_input`",
        "messages.py",
        'for item in asked if item is last[item["source"]]]',
        "for item in asked]",
        FRAMES + "test_payloads_open_no_file_and_come_once_each",
    ),
    mutant(
        "your attention: floods of questions",
        "questions.py",
        "if self.waiting >= MOST_QUESTIONS:",
        "if False:",
        FRAMES + "test_a_flood_of_questions_asks_a_person_one_at_a_time",
    ),
    mutant(
        "sandbox's other files: names of questions that are paths",
        "questions.py",
        "not isinstance(request_id, str) or not request_id.isalnum() or",
        "not isinstance(request_id, str) or",
        FRAMES + "test_an_answer_goes_only_to_the_file_of_its_question",
    ),
    mutant(
        "kernel: floods of comms, questions and payloads",
        "messages.py",
        'for item in asked if item is last[item["source"]]]',
        "for item in asked]",
        CELL + "test_floods_of_questions_comms_and_payloads_end_with_the_cell",
    ),
    mutant(
        "log: floods of nonsense",
        "session.py",
        "if running.dropped <= REPORTED:",
        "if True:",
        FRAMES + "test_a_flood_of_nonsense_does_not_fill_the_log",
    ),
    # What code does, taken for what a person wrote: calls of the magic, wherever they stand.
    Mutant(
        "this machine: `%daytona` from code",
        (
            Edit("kernel.py", 'if "%daytona" in content["code"]:', 'if "daytona" in content["code"]:'),
            Edit("cellsplit.py", "    if MARK not in cell:\n", "    if MAGIC not in cell:\n"),
        ),
        (CELL + "test_code_in_the_sandbox_runs_no_command_of_this_machine",),
    ),
    mutant(
        "other notebooks: values on the shelf that claim to be what they are not",
        "values.py",
        "        if not self._trust:\n",
        "        if False:\n",
        "magics/test_variables.py::test_a_pickle_in_disguise_is_read_by_no_notebook",
    ),
    mutant(
        "this machine: pickles",
        "values.py",
        "        if not self._trust:\n",
        "        if False:\n",
        "magics/test_variables.py::test_a_value_that_claims_to_be_plain_is_not_unpickled",
    ),
    mutant(
        "terminal, log: control sequences",
        "terminal.py",
        'return control.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)',
        "return text",
        TERMINAL + "test_no_sequence_gets_through",
        TERMINAL + "test_logs_and_errors_that_quote_the_sandbox_are_plain",
    ),
    mutant(
        "terminal, log: control sequences",
        "terminal.py",
        "        if allowed.match(match[0]):\n",
        "        if True:\n",
        TERMINAL + "test_no_sequence_gets_through",
    ),
    mutant(
        "terminal, log: control sequences",
        "magics/words.py",
        'char if char.isprintable() else f"\\\\x{ord(char):02x}" for char in text',
        "char for char in text",
        FILES + "test_control_characters_in_names_reach_no_terminal",
    ),
    mutant(
        "your files: names with `..`, absolute, NUL, backslash",
        "transfer.py",
        'or any(part in ("..", ".") for part in parts):',
        "or False:",
        "magics/test_transfer.py::test_a_list_with_hostile_names_gives_errors_and_no_files",
    ),
    mutant(
        "your files: names with `..`, absolute, NUL, backslash",
        "transfer.py",
        'if "\\\\" in name or "\\0" in name or',
        "if",
        "magics/test_transfer.py::test_a_list_with_hostile_names_gives_errors_and_no_files",
        why=f"{ASSERTED}|ValueError: embedded null",
    ),
    Mutant(
        "your files: names with `..`, absolute, NUL, backslash",
        (
            Edit(
                "transfer.py",
                "    target = folder.joinpath(*parts)\n",
                "    target = folder / Path(name).expanduser()\n",
            ),
            Edit("transfer.py", "    if not checked[target.parent]:\n", "    if False:\n"),
        ),
        (SERVER + "test_odd_names_stay_in_the_target_folder",),
    ),
    mutant(
        "your files: links on the way",
        "transfer.py",
        "    if not checked[target.parent]:\n",
        "    if False:\n",
        SERVER + "test_a_link_on_the_way_is_not_written_through",
    ),
    mutant(
        "your files: links on the way",
        "remote.py",
        "    for root, dirs, files in os.walk(top):\n        dirs.sort()\n",
        "    for root, dirs, files in os.walk(top):\n"
        "        files += [d for d in dirs if os.path.islink(os.path.join(root, d))]\n"
        "        dirs[:] = sorted(d for d in dirs if d not in files)\n",
        FILES + "test_links_of_the_sandbox_give_the_content_and_never_a_link",
    ),
    Mutant(
        "your files: overwriting",
        (
            Edit("transfer.py", "if not self.force and os.path.lexists(item.local):", "if False:"),
            Edit(
                "transfer.py",
                "        if self.force:\n            os.replace",
                "        if True:\n            os.replace",
            ),
        ),
        (FILES + "test_download_never_overwrites_without_force",),
    ),
    # What has come is taken for the file: to go on for ever would fill the disk of whoever runs this.
    mutant(
        "disk: a file that does not end",
        "transfer.py",
        'raise SandboxProtocolError(f"{item.remote} has grown: more comes than it had.")',
        "break",
        SERVER + "test_a_file_that_does_not_end_does_not_fill_the_disk",
    ),
    mutant(
        "memory, disk: output without end of a notebook that nobody watches",
        "notebookclient.py",
        "kept = self.limit.take(msg)",
        "kept = msg",
        "cli/test_run.py::test_a_cell_that_prints_for_ever_fills_no_disk",
    ),
    mutant(
        "memory: answers that do not end, compressed bombs",
        "toolbox.py",
        "        if size > limit:\n",
        "        if size > 64 * limit:\n",
        SERVER + "test_an_endless_answer_is_given_up",
        SERVER + "test_a_compressed_bomb_is_given_up",
    ),
    mutant(
        "memory: answers that do not end, compressed bombs",
        "controlplane.py",
        "        if len(data) > MAX_ANSWER_BYTES:\n",
        "        if len(data) > 64 * MAX_ANSWER_BYTES:\n",
        SERVER + "test_an_endless_answer_is_given_up",
        SERVER + "test_a_compressed_bomb_is_given_up",
    ),
    mutant(
        "kernel: answers of any kind",
        "toolbox.py",
        "            return body if isinstance(body, dict) else {}\n",
        "            return body\n",
        SERVER + "test_any_answer_is_a_value_or_an_error_of_ours",
        why="AttributeError: '(list|int|NoneType)' object has no attribute 'get'",
    ),
)
