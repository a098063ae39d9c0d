"""Figures and pages made from plain data.

Nothing below imports this package; nothing here computes what it shows.
"""
