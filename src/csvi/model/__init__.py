"""The bricks that networks are made of: trunks, streams, heads, decoder, weights. None knows a setting or a dataset."""
