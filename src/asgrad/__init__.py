"""asgrad."""
