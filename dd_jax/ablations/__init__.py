"""The results table: every row is trained and evaluated with several seeds.

``plan`` chooses the rows, ``runs`` trains and evaluates them, ``table`` summarises the results.
"""
