"""Orchestration: Dagster assets, checks, sensors and jobs around the domain library `taxifare`."""
