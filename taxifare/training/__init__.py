"""Learning: the base years, rehearsal, fits from random weights, challengers, and the versions that come of them.

- What is learned from: `base_trips`, `gathering`, `rehearsal`.
- How: `from_random_weights`, `challengers`; `recipe` says what a training depends on.
- What is registered: `base_model`, `renewal`, `staging`, `whole_month`, `candidates`; `appraisal` scores it.

The network itself is in `model`; whether the result is good enough is the business of `gate`.
"""
