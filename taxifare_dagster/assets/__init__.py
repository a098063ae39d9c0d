"""The assets: `trips`, the `models` made of them, `production` that prices rides, and `replay`: what might have been.

A body resolves its inputs, calls one function of the domain, and returns the value with what its page shows. Checks of
assets are in `checks`, the pictures and tables of pages in `metadata`.
"""
