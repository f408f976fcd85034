"""Why a page has no document."""


class Dropped(Exception):
    """The page is dropped. The message is the reason, as "family/rule": it is a count of the stage, so it quotes nothing of the page."""
