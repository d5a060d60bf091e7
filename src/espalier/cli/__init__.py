"""The terminal's face: commands read off the operations table, rendered for people or as JSON."""
