"""``invsolve ui``: a page on this machine that runs the commands. Needs ``pip install 'invsolve[ui]'``.

The page makes a command's arguments of what is filled in (:mod:`invsolve.ui.forms`), a process of its own runs them one
after the other (:mod:`invsolve.ui.jobs`), and :mod:`invsolve.ui.app` serves what comes of it to whoever knows the token in
the address (:mod:`invsolve.ui.guard`). Nothing here solves anything or knows how a picture file is read.
"""
