"""What is kept: clips, datasets, models, releases, lineage."""
