"""What was quoted, compared with what was paid: outcomes, the realised error, and what watches over both.

This package deals with what is known only after rides were priced. What a version promised before is `gate`'s; asking
and telling people is `approval`'s; `reports` makes pages and pictures. Whatever prices rides imports nothing from here.
"""
