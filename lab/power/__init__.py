"""How often a statistical verdict is wrong: simulated on recorded samples, with effects of known size."""
