"""Looking after an installation: is everything there, and what has become of each month.

Nothing here changes what it looks at.
"""
