"""Writers, readers and contents of every product format."""
