"""Looking after an installation: is everything there, where it stands, and what has become of each month.

Nothing here changes what it looks at; pages of months are made for people to look at.
"""
