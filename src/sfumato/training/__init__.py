"""Private training: models learn from pictures, and no picture is memorised."""
