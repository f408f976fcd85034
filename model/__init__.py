"""The model: a library that knows neither stages nor Prefect."""
