"""Formats of chat data that others publish, each turned into the records of tasks/records/conversations.py."""
