"""All models and counts to the report card."""
