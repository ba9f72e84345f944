"""Training: cutouts drawn on the fly, losses, and a loop that can be killed and resumed."""
