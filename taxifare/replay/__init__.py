"""What would have happened under other policies: policies, trainings on a shelf, results.

Pages are made in `reports`; nothing is registered, asked or promoted.
"""
