"""Where images come from: data sets, files and generators."""
