"""What runs trainings: one of them, or many towards one answer."""
