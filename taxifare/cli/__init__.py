"""The `taxifare` command, one module a subject.

Bodies parse, call one function of the domain, and print.
"""
