"""Judging: scores, slices, evidence, verdict, staleness.

Pure functions of predictions; nothing here trains, asks or decides.
"""
