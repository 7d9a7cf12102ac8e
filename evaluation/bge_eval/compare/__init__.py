"""Two or more systems on the same tasks: what differs, by how much, and whether by chance."""
