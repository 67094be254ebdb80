"""Hydra's plugins: launchers, searches and ready-made axes."""
