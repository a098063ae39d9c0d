"""The production model at work: bundles that price rides, and what uses them: commands, a service, batches, streams.

A serving process imports no TensorFlow, MLflow, pandas, Dagster or SQLAlchemy: whatever needs them to make a bundle, or
to price trips in a frame, is a module of its own and says so. `approval` decides which version is in force.
"""
