"""A bounded search for what nobody has thought of: `make redteam`, or `python -m redteam` in `tests`.

Three kinds of tries, drawn from a seed: random scripts in sandboxes (`scripts.py`), mutated and combined cheats against
hidden cases and hidden suites (`submissions.py`). `trying.py` says what must hold for each.
"""
