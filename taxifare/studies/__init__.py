"""Experiments on demand: tuning and the learning curve.

They return data; whoever runs them draws it and keeps the picture.
"""
