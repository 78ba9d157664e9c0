"""The tests, in the shape of the tree: `python -m tests` runs everything."""
