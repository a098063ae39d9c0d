"""The assets: `trips` is what is known of rides, `models` what is made of it, `replay` what might have been.

A body resolves its inputs, calls one function of the domain, and returns the value with what its page shows. Checks of
assets are in `checks`, the pictures and tables of pages in `metadata`.
"""
