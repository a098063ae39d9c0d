"""Where months of trips come from: one module a source, one protocol for all, one place that picks by setting."""
