"""The network and its versions: shape, fitting, exposure, correction, packaging, MLflow.

What a network is fitted to, and why, is the business of `training`; nothing here judges or decides.
"""
