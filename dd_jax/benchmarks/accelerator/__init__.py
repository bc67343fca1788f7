"""The first minutes on a machine with an accelerator: one command measures everything, one process after the other.

``plan`` is the table of measurements. ``run`` starts a process for each (``child``) and never uses the device itself. A
measurement is a function of a :class:`task.Task` that yields rows; each is saved as it comes.
"""
