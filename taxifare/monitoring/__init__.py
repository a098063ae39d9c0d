"""What was quoted, held against what was paid: outcomes, the error that came of them, and what watches over both.

Here belongs what is known only after rides were priced. What a version promised before is `gate`'s; who is asked, or
told, is `approval`'s; pages and pictures are made in `reports`. Nothing here is imported by what prices rides.
"""
