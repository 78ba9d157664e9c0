"""How each kind of recovery probe asks; `workers.prober` has them ask, one at a time."""
