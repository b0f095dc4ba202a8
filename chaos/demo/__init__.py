"""``make demo``: a year of departures through three brokers, one of them killed."""
