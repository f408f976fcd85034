"""Documents to fewer documents: URL, language, quality, personal data."""
