"""The sandbox's desktop (``/computeruse``): a real X server that nobody sees unless they look.

Everything is done by programs of the system (:mod:`.programs` lists them); errors name what is missing.

- :mod:`.session` starts and watches Xvfb, a window manager, x11vnc and noVNC;
- :mod:`.screen`, :mod:`.pointer`, :mod:`.keyboard` and :mod:`.recordings` work on it;
- :mod:`.api` has the endpoints.
"""
