"""Helper functions for files, warnings, optional packages and statistics."""
