"""Figures, tables and pages made from plain data.

Nothing below imports this package; nothing here decides, scores or reads what it shows.
"""
