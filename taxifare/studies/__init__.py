"""Experiments on demand: tuning and the learning curve.

They return data; whoever runs them draws it and keeps the picture. No study changes what is in production or which
settings are in force: a person adopts what a search found (`adopting`). docs/decisions.md, under studies.
"""
