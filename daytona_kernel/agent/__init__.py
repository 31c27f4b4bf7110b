"""The agent: runs inside the sandbox, in the interpreter context, and makes it a Jupyter kernel's back end.

It is sent there as text by :mod:`daytona_kernel.payload` and imported under the name ``_daytona_agent``;
nothing of it needs a file in the sandbox. It uses the standard library, :mod:`daytona_kernel.wire`, and
IPython where there is one. What the modules do:

``bootstrap``   entry: puts the pieces together, once per context
``service``     one request (a cell, a completion ...) from its JSON to its ``done``
``shell``       the IPython shell that runs cells; ``plain`` is what is left without IPython
``display``     display hook and display publisher
``streams``     ``sys.stdout`` and ``sys.stderr``, and what child processes write to descriptors 1 and 2
``stdin``       ``input()``, ``getpass()``, and the worker's command pipe
``comms``       comms (widgets)
``outbox``      frames on their way out: order, numbering, spool, flow control
``interrupts``  when a SIGINT may become a KeyboardInterrupt
"""
