"""The page of `csvi app`: desk.py, what it can be asked; page.py, what it looks like; server.py, who may ask."""
