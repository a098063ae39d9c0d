"""The domain library: trips in, fares, verdicts and decisions out. It never imports dagster."""
