"""Why a multi-frame student is not better than its single-frame teacher: the questions of ``scripts/diagnose.py``.

``diagnose`` asks all of them: ``lookup`` (does the lookup frame matter), ``poses`` (against ``true_poses``), ``matching`` (plane
sweep by depth), ``supervision`` (which pixels train which network). The answers are a ``result``; ``findings`` says what they
mean, ``tables`` and ``page`` show them, ``checkpoint`` does all this for a trained model.
"""
