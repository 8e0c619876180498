"""Private queries: answers about the crowd, not the person."""
