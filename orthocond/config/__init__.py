"""Configuration of runs: the schema, its sources, method names and presets."""
