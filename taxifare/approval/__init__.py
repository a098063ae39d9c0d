"""Deciding: the ledger, requests, decisions, promotions, what is due, and the message that asks.

Nothing here trains or scores; the model registry is a projection of what the ledger says.
"""
