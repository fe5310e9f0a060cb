"""Search: images to embeddings, embeddings into a gallery, and questions to it."""
