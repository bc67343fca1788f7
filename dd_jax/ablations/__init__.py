"""The results table: rows times seeds, each a training and an evaluation of its own, and what they say together.

``plan`` says which rows there are to run, ``runs`` makes what is not finished, ``costs`` counts what a step of a row computes,
``table`` is made of what these have found.
"""
