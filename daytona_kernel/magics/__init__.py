"""What ``%daytona`` can do, one module per family of commands; for the kernel and the IPython extension.

A command is a coroutine that gets a :class:`~daytona_kernel.magics.host.Host` and its parsed arguments; it
runs on the session's event loop and is interrupted by being cancelled. What it returns is shown by the host.
"""
