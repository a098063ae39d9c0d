"""The `taxifare` command, one module a subject; `main` puts them together, `shared` has what they have in common.

Bodies parse, call the domain, and print. What only the orchestration knows reaches them as `Surroundings`.
"""
