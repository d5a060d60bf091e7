"""Label Studio: tasks and a labelling configuration for it, and what it exports as records."""
