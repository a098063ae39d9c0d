"""What columns of features and of quotes mean, with their units, for pages that show them."""

from taxifare.trips.cities import City

_MEANINGS = {
    "haversine_km": "Distance as the crow flies (km)",
    "grid_km": "Distance along the city's street grid (km)",
    "pickup_east_km": "How far east of the city's center the ride starts (km)",
    "pickup_north_km": "How far north of the city's center the ride starts (km)",
    "dropoff_east_km": "How far east of the city's center the ride ends (km)",
    "dropoff_north_km": "How far north of the city's center the ride ends (km)",
    "east_km": "How far the ride goes east (km; negative: west)",
    "north_km": "How far the ride goes north (km; negative: south)",
    "bearing_sin": "Sine of the direction, clockwise from north (-1 to 1)",
    "bearing_cos": "Cosine of the direction, clockwise from north (-1 to 1)",
    "weekday": "Day of the week (0 Monday to 6 Sunday)",
    "hour": "Time of day (hours, 0 to 24)",
    "hour_sin_1": "Sine of the time of day, one cycle a day (-1 to 1)",
    "hour_cos_1": "Cosine of the time of day, one cycle a day (-1 to 1)",
    "hour_sin_2": "Sine of the time of day, two cycles a day (-1 to 1)",
    "hour_cos_2": "Cosine of the time of day, two cycles a day (-1 to 1)",
    "week_sin": "Sine of the time of the week, one cycle a week (-1 to 1)",
    "week_cos": "Cosine of the time of the week, one cycle a week (-1 to 1)",
    "is_night": "Whether the ride starts in the city's night hours (0 or 1)",
    "is_rush": "Whether the ride starts in the evening rush hour, Monday to Friday (0 or 1)",
    "year_sin": "Sine of the season, one cycle a year (-1 to 1)",
    "year_cos": "Cosine of the season, one cycle a year (-1 to 1)",
    "passengers": "Number of passengers; 1 where it is missing",
    "trend_years": "Time since the beginning of 2000 (years)",
}


_QUOTES = {
    "ride_id": "What the client calls the ride (text)",
    "served_as": "production: what the customer was told; shadow: only logged (text)",
    "version": "Number of the registered version that priced the ride (text)",
    "sequence": "Number of the promotion in force; none where a bundle was served directly (number)",
    "bundle": "Digest of the bundle that priced the ride; none for files of rides (text)",
    "asked_at": "When the price was asked for (UTC)",
    "pickup_datetime": "When the ride begins (the city's wall-clock time)",
    "pickup_longitude": "Where the ride begins (degrees)",
    "pickup_latitude": "Where the ride begins (degrees)",
    "dropoff_longitude": "Where the ride ends (degrees)",
    "dropoff_latitude": "Where the ride ends (degrees)",
    "passenger_count": "Number of passengers (number)",
    "predicted": "The prediction, which errors are measured by ({unit})",
    "quoted": "The quote as the meter would show it ({unit})",
    "truth": "What the ride came to; none where it is not known ({unit})",
    "reference": "What a flat per-km rate expects of the ride ({unit})",
    "fate": "What became of the ride: docs/monitoring.md lists the fates (text)",
    "told_least": "The least that was reported of the ride ({unit})",
    "told_most": "The most that was reported of the ride ({unit})",
    "began_at": "When the ride began as the source has published it (the city's wall-clock time)",
}


def meaning_of_quote(name: str, unit: str) -> str:
    """Returns what a column of quotes and outcomes means, with its unit.

    >>> meaning_of_quote("quoted", "USD")
    'The quote as the meter would show it (USD)'
    """
    return _QUOTES[name].format(unit=unit)


def meaning_of_feature(name: str, city: City) -> str:
    """Returns what a feature of the city's rides means, with its unit.

    >>> from taxifare.trips.city_files import shipped
    >>> meaning_of_feature("pickup_jfk_km", shipped("new-york").facts)
    'Distance from where the ride starts to JFK (km)'
    """
    if name in _MEANINGS:
        return _MEANINGS[name]
    for airport in city.airports:
        for end, does in (("pickup", "starts"), ("dropoff", "ends")):
            if name == f"{end}_{airport.code.lower()}_km":
                return f"Distance from where the ride {does} to {airport.code} (km)"
    (rule,) = (rule for rule in city.rules if rule.name == name)
    return f"Whether this rule is in force (0 or 1): {rule.description}, since {rule.since}"
