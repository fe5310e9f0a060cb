"""Person masks for real images: segmenters, the quality of what they say, and masks that others made."""
