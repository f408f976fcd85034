"""The command `crawl2chat`: one file per verb."""
