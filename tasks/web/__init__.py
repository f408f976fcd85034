"""What every stage may ask about the web: URLs, downloads, block lists, languages."""
