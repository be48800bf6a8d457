"""The web site: pages, charts, pictures."""
