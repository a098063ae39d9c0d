"""The model in production in use: bundles that price rides, and what asks them: commands, a service, batches, streams.

A process that serves imports no TensorFlow, MLflow, pandas, Dagster or SQLAlchemy: what needs them to make a bundle, or
to price trips that are a frame, is a module of its own and says so. Which version is in force is decided in `approval`.
"""
