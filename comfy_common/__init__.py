"""What every other package may use: paths, sources, downloads, models.txt. Standard library only."""
