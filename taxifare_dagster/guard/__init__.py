"""The guard of a shared installation: nginx before Dagster's webserver, which has no login of its own."""
