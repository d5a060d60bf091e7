"""Files -> documents -> examples -> dataset version. Knows no model and no training."""
