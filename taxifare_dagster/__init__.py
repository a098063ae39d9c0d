"""Orchestration: Dagster's assets, checks, jobs and sensors around the domain library `taxifare`.

A module for each kind of definition; `build` puts them together and `definitions` is the code location. What a fare, a
verdict or a decision is belongs in `taxifare`: bodies here resolve what they need, call one function of it, and show
the result.
"""
