"""Trained networks for use elsewhere: as files of other formats, and with shorter embeddings."""
