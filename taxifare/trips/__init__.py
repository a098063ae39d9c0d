"""What a trip is, and what can be said of trips before any model sees them.

Table, months, cities, targets, editions, cleaning, splitting, features, preparation. Where trips come from is the
business of `sources`; no model is known here.
"""
