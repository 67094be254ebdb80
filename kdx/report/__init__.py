"""`kdx report`: many finished runs as one page that needs neither server nor network."""
