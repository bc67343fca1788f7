"""The results table: every row continues one trained model with several seeds and is compared with its control.

``plan`` chooses the rows, ``runs`` trains them, ``measure`` evaluates a run with several lookup frames, ``result`` is what is
kept of it, ``comparison`` summarises the results with the intervals of ``statistics``, ``table`` writes them.
"""
