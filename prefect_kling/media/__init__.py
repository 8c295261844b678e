"""The cutting room: probing, joining, frames. Knows neither HTTP nor Prefect."""
