"""`kdx report`: one self-contained HTML page about many finished runs."""
