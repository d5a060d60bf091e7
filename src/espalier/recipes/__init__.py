"""Recipes that ship with the package: data files only, copied beside a user's own documents."""
