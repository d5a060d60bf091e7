"""One base in several processes of this machine, each with an engine of its own. Only the workers import torch."""
