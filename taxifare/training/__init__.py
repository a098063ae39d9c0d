"""Learning: base years, rehearsal, fits from random weights, challengers, renewal, and scoring what came of it.

The network itself is in `model`; whether the result is good enough is the business of `gate`.
"""
