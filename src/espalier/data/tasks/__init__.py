"""Documents -> Examples: one module per kind of task. Knows messages; does not know prompts' versions or tokens."""
