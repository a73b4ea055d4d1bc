"""The grid of bricks and lists of them."""
