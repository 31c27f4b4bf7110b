"""Defences of keys and other secrets, and of the page that shows output."""

from __future__ import annotations

from .model import ASSERTED, Edit, Mutant, mutant

SERVER = "security/test_hostile_server.py::"
CANARIES = "security/test_canaries.py::"
PAGE = "security/test_output_trust.py::"
REDIRECTED = SERVER + "test_no_redirection_takes_the_key_or_the_cells_elsewhere"
FORGED = SERVER + "test_a_certificate_that_nobody_signed_gets_no_request"
IN_CHROMIUM = "browser/test_output_trust.py::test_isolated_output_reaches_nothing"

MUTANTS = (
    mutant(
        "key: redirection",
        "controlplane.py",
        "allow_redirects=False",
        "allow_redirects=True",
        REDIRECTED,
        why=ASSERTED,
    ),
    mutant("key: redirection", "toolbox.py", "allow_redirects=False", "allow_redirects=True", REDIRECTED),
    mutant(
        "key: redirection",
        "channel.py",
        "        return exc\n",
        "        return super().process_redirect(exc)\n",
        REDIRECTED,
        why=f"{ASSERTED}|daytona_kernel.errors|Refused|ConnectionFailed",
    ),
    mutant(
        "key: a forged certificate",
        "controlplane.py",
        "allow_redirects=False",
        "allow_redirects=False, ssl=False",
        FORGED,
    ),
    mutant(
        "key: a forged certificate",
        "toolbox.py",
        "allow_redirects=False",
        "allow_redirects=False, ssl=False",
        FORGED,
    ),
    mutant(
        "key: a forged certificate",
        "channel.py",
        "            close_timeout=2,\n",
        "            close_timeout=2,\n            ssl=__import__('ssl')._create_unverified_context(),\n",
        FORGED,
        why=f"{ASSERTED}|daytona_kernel.*Refused",
    ),
    mutant(
        "key: an address without https",
        "sandbox.py",
        'if self.sandbox.plane.api_url.startswith("https:") and not base.startswith("https:"):',
        "if False:",
        SERVER + "test_a_key_that_goes_by_https_is_not_sent_without_it",
    ),
    mutant(
        "key: `.env` that names an address",
        "service.py",
        'os.environ.get("DAYTONA_API_URL", "") or',
        'settings.credential("DAYTONA_API_URL") or',
        SERVER + "test_a_file_beside_the_notebook_does_not_say_where_the_key_goes",
    ),
    mutant(
        "key: `.env` that names an address",
        "config.py",
        '"DAYTONA_TARGET")\n"""What a file',
        '"DAYTONA_TARGET", "DAYTONA_API_URL")\n"""What a file',
        "cli/test_account.py::test_a_file_of_an_account_gives_no_address",
    ),
    mutant(
        "secrets: messages and errors of commands",
        "magics/host.py",
        "return self.session.secrets.text(text) if hidden else text",
        "return text",
        CANARIES + "test_messages_have_none",
    ),
    mutant(
        "secrets: messages and errors of commands",
        "outflow.py",
        "        if not self._secrets:\n            _publish_text",
        "        if True:\n            _publish_text",
        CANARIES + "test_messages_have_none",
    ),
    mutant(
        "secrets: libraries that log everything",
        "channel.py",
        "            logger=_quiet,\n",
        "",
        CANARIES + "test_an_ipython_shows_none_even_while_everything_logs",
    ),
    Mutant(
        "secrets: files and their modes",
        (
            Edit("local/cli.py", "os.umask(0o077)", "os.umask(0o022)"),
            Edit(
                "local/server.py",
                "os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)",
                "os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)",
            ),
        ),
        (CANARIES + "test_files_have_none_and_are_their_owner_s",),
    ),
    mutant(
        "secrets: files and their modes",
        "local/paths.py",
        "            path.chmod(0o700)\n",
        "            path.chmod(0o755)\n",
        CANARIES + "test_files_have_none_and_are_their_owner_s",
    ),
    mutant(
        "secrets: files and their modes",
        "kernelstate.py",
        "os.O_TRUNC, 0o600)",
        "os.O_TRUNC, 0o644)",
        CANARIES + "test_files_have_none_and_are_their_owner_s",
    ),
    mutant(
        "secrets: output, cut anywhere",
        "redaction.py",
        "        if len(raw) - begun < HELD_CHARS:\n",
        "        if True:\n",
        "security/test_redaction.py::test_no_cut_shows_more_than_its_first_characters",
    ),
    mutant(
        "secrets: output, cut anywhere",
        "outflow.py",
        "        if self._secrets:\n            shaped",
        "        if False:\n            shaped",
        "security/test_redaction.py::test_no_message_has_it",
    ),
    mutant(
        "Jupyter's page: HTML, SVG, JavaScript, Markdown, widgets",
        "trust.py",
        "        kept[HTML] = framed(page)\n",
        "        kept[HTML] = page\n",
        PAGE + "test_only_harmless_forms_are_left",
    ),
    mutant(
        "Jupyter's page: HTML, SVG, JavaScript, Markdown, widgets",
        "trust.py",
        "    kept: Content = {mime: data[mime] for mime in PIXELS if _is_base64(data.get(mime))}\n",
        "    kept: Content = dict(data)\n",
        PAGE + "test_only_harmless_forms_are_left",
        why=f"{ASSERTED}|ExceptionGroup|TypeError: expected string",
    ),
    mutant(
        "Jupyter's page: HTML, SVG, JavaScript, Markdown, widgets",
        "trust.py",
        'srcdoc="{html.escape(whole)}"',
        'srcdoc="{whole}"',
        PAGE + "test_a_page_can_not_get_out_of_its_frame",
    ),
    mutant(
        "Jupyter's page: cookies, REST API, top navigation, messages, network, in Chromium",
        "trust.py",
        'content="{POLICY}">',
        'content="">',
        IN_CHROMIUM,
    ),
    mutant(
        "Jupyter's page: cookies, REST API, top navigation, messages, network, in Chromium",
        "trust.py",
        'about = f\'sandbox="" referrer',
        'about = f\'sandbox="allow-scripts allow-same-origin" referrer',
        IN_CHROMIUM,
    ),
    mutant(
        "Jupyter's page: names of files, sandboxes and programs in tables of `%daytona`",
        "magics/words.py",
        "return str(cell) if isinstance(cell, Markup) else escape(cell)",
        "return str(cell)",
        PAGE + "test_names_of_the_sandbox_are_text_in_our_own_tables",
    ),
    mutant(
        "Jupyter's page: names of files, sandboxes and programs in tables of `%daytona`",
        "magics/words.py",
        'if not url.startswith(("http://", "https://")):',
        "if False:",
        PAGE + "test_names_of_the_sandbox_are_text_in_our_own_tables",
    ),
)
