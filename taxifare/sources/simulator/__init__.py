"""A simulated New York taxi meter: months of trips that need no network, no files and no account.

A ride is told from its start: when it is hailed (demand by hour, weekday and season), from where to where (a gravity
model over neighbourhoods and airports), by which route (the street grid, with detours), how fast (hour, weekday,
season, a slow decline over the years, good and bad days) and what the meter shows for it (the tariff and tolls of that
date). Neither route nor speed is published, so the fare cannot be computed from what is known at pickup, only
estimated – with about the error that real trips leave.

Shares, speeds and defect rates were measured on a 1/1000 sample of the public yellow-taxi records, 2009 to June 2015.
"""
