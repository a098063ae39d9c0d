"""The assets: `trips` is what is known of rides, `models` what is made of it."""
