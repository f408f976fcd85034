"""The DAG, its stages as Prefect flows, and the command."""
