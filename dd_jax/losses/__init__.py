"""Loss terms, one file per family; ``method/objective.py`` lists and weights them."""
