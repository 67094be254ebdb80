"""Parts of a user's own: a loss, a network and a data set, which kdx runs without a fork."""
