"""The stages: what each does with its artifacts. Knows no Prefect."""
